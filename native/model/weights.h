// weights.h: the tensors of a model by what they are for. Names are in arch/, memory is the loader's.
#pragma once

#include <vector>

#include <ggml.h>

namespace lazygguf {

// A matrix [n_in, n_out], and F32 [n_out] that is added, null where the file has none.
struct linear_weights {
    ggml_tensor * weight = nullptr;
    ggml_tensor * bias = nullptr;
};

// Of one layer; null or without weight is what its architecture does not have.
struct layer_weights {
    ggml_tensor * attn_norm = nullptr;  // F32 [n_embd]
    linear_weights wq;                  // [n_embd, n_embd_q]
    linear_weights wk;                  // [n_embd, n_embd_kv]
    linear_weights wv;                  // [n_embd, n_embd_kv]
    linear_weights wo;                  // [n_embd_q, n_embd]
    ggml_tensor * q_norm = nullptr;     // F32 [n_embd_head], or of all heads
    ggml_tensor * k_norm = nullptr;     // F32 [n_embd_head], or of all heads
    ggml_tensor * attn_post = nullptr;  // F32 [n_embd], the norm of what attention adds
    ggml_tensor * ffn_norm = nullptr;   // F32 [n_embd]
    linear_weights ffn_gate;            // [n_embd, n_ff]
    linear_weights ffn_up;              // [n_embd, n_ff]
    linear_weights ffn_down;            // [n_ff, n_embd]
    ggml_tensor * ffn_post = nullptr;   // F32 [n_embd], the norm of what the feed-forward network adds
    ggml_tensor * rope_freqs = nullptr; // F32 [n_rot/2], divides the frequencies of rope; shared by the layers
};

struct model_weights {
    ggml_tensor * tok_embd = nullptr;    // [n_embd, n_vocab]
    ggml_tensor * output_norm = nullptr; // F32 [n_embd]
    ggml_tensor * output = nullptr;      // [n_embd, n_vocab]
    std::vector<layer_weights> layers;
};

} // namespace lazygguf
