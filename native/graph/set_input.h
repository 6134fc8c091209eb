// set_input.h: host data for one input of an allocated graph.
#pragma once

#include <vector>

#include <ggml-backend.h>

namespace lazygguf {

template <typename T> void set_input(ggml_tensor * t, const std::vector<T> & data) {
    if (t != nullptr && t->buffer != nullptr) { // no buffer: no node of this graph reads it
        ggml_backend_tensor_set(t, data.data(), 0, ggml_nbytes(t));
    }
}

} // namespace lazygguf
