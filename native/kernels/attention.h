// attention.h: attention over cached rows for several queries at once, on the CPU.
//
// ggml's own kernel unpacks every K tile again for each head and each 64 queries, which at long contexts costs as much
// as the arithmetic. Here the heads of a group share a tile. Sums and softmax are F32, as in ggml's.
#pragma once

#include <ggml-cpp.h>

namespace lazygguf {

// Can build_attention_rows run this?
bool has_attention_rows(const ggml_tensor * q, const ggml_tensor * k, const ggml_tensor * v);

// q F32 [n_embd_head, n_head, n_rows], k and v F16 or F32 [n_embd_head, n_kv, n_head_kv] (views of the cache), mask F16
// [n_kv, n_rows] of 0 or -inf -> F32 [n_embd_head, n_head, n_rows]
ggml_tensor * build_attention_rows(ggml_context * ctx, ggml_tensor * q, ggml_tensor * k, ggml_tensor * v,
                                   ggml_tensor * mask);

// Can build_key_products run this?
bool has_key_products(const ggml_tensor * q, const ggml_tensor * k);

// q F32 [n_embd_head, n_query, n_head], k as above -> F32 [n_kv, n_query, n_head], what ggml_mul_mat(k, q) gives: the
// heads of a group are multiplied together, where ggml takes each alone
ggml_tensor * build_key_products(ggml_context * ctx, ggml_tensor * q, ggml_tensor * k);

} // namespace lazygguf
