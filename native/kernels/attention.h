// attention.h: attention over cached rows on the CPU, and its scores.
//
// ggml's own kernel unpacks every K tile again for each head and each 64 queries, which at long contexts costs as much
// as the arithmetic. Here the heads of a group share a tile. Sums and softmax are F32, as in ggml's.
//
// A query's output has the same bits whatever other queries are computed with it, by however many threads, and whatever
// cache rows its tokens landed in: `kv_order` I32 [n_kv] names cache rows by ascending position, and `visible` I32
// [2, n] says which entries of it, [begin, end), each query row sees. Neither number falls from one row to the next.
// Entries that no row sees are not read. K and V are views of the cache, [n_embd_head, n_kv, n_head_kv], of any type
// that ggml converts to floats.
#pragma once

#include <ggml-cpp.h>

#include "simd/kernel_set.h"

namespace lazygguf {

// Where each query row's tokens are.
struct kv_entries {
    ggml_tensor * order;
    ggml_tensor * visible;
};

// q F32 [n_embd_head, n_head, n_rows] -> F32 [n_embd_head, n_head, n_rows]
ggml_tensor * build_attention(ggml_context * ctx, ggml_tensor * q, ggml_tensor * k, ggml_tensor * v, kv_entries entries,
                              attention_settings & settings);

// q F32 [n_embd_head, n_head, n_query] -> F32 [n_kv, n_query, n_head]: the softmax by entry of kv_order, 0 where a row
// does not see it
ggml_tensor * build_attention_scores(ggml_context * ctx, ggml_tensor * q, ggml_tensor * k, kv_entries entries,
                                     attention_settings & settings);

// scores F32 [n_kv, n_query, n_head] -> F32 [n_kv, n_query], the heads added in their order
ggml_tensor * build_head_sum(ggml_context * ctx, ggml_tensor * scores);

} // namespace lazygguf
