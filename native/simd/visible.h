// visible.h: which entries of kv_order a query row sees.
#pragma once

#include <ggml.h>

namespace lazygguf::LAZY_ISA {

struct entry_span {
    int begin;
    int end;
};

// Of the tensor `visible`, I32 [2, n_rows]. Neither number falls from one row to the next.
inline entry_span visible_to(const ggml_tensor * visible, int row) {
    const auto * span = reinterpret_cast<const int32_t *>(static_cast<const char *>(visible->data) +
                                                          static_cast<size_t>(row) * visible->nb[1]);
    return {span[0], span[1]};
}

// The rows of [first, last) that see some entry of [begin, end).
inline entry_span rows_that_see(const ggml_tensor * visible, int first, int last, int begin, int end) {
    while (first < last && visible_to(visible, first).end <= begin) {
        ++first;
    }
    while (first < last && visible_to(visible, last - 1).begin >= end) {
        --last;
    }
    return {first, last};
}

} // namespace lazygguf::LAZY_ISA
