// hparams.h: the numbers that say what a model looks like, read from a GGUF file and checked.
//
// Owns the meaning and the limits of the `<arch>.*` keys. After read_hparams() every number is safe to build tensors
// and graphs from. Which keys an architecture has is its file's business (arch/), with the pieces below.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "file/gguf_file.h"
#include "model/file_rules.h"

namespace lazygguf {

struct architecture; // model/architecture.h

struct rope_params {
    int n_rot = 0; // rotated dimensions of a head; 0: the layer does not rotate
    int mode = 0;  // GGML_ROPE_TYPE_NORMAL (pairs 2i, 2i+1) or GGML_ROPE_TYPE_NEOX (pairs i, i + n_rot/2)
    int n_ctx_orig = 0;
    float freq_base = 10000.0F;
    float freq_scale = 1.0F;
    float ext_factor = 0.0F; // 1: yarn
    float attn_factor = 1.0F;
    float beta_fast = 32.0F;
    float beta_slow = 1.0F;
};

// What may differ between the layers of one model.
struct layer_params {
    rope_params rope;
    float rms_eps = 0.0F;
    float attn_scale = 0.0F;     // of Q * K before softmax
    float attn_softcap = 0.0F;   // products go through cap * tanh(x / cap); 0: as they are
    int n_window = 0;            // a row sees so many positions up to its own; 0: all
    float residual_scale = 1.0F; // of what attention and the feed-forward network add
};

struct hparams {
    const architecture * arch = nullptr;
    int n_vocab = 0; // rows of token_embd
    int n_ctx_train = 0;
    int n_embd = 0;
    int n_layer = 0;
    int n_head = 0;
    int n_head_kv = 0;
    int n_embd_head = 0;
    int n_ff = 0;
    float embd_scale = 1.0F;          // of the embeddings
    float logit_scale = 1.0F;         // of the logits
    float logit_softcap = 0.0F;       // logits go through cap * tanh(x / cap); 0: as they are
    std::vector<layer_params> layers; // (n_layer)

    int n_embd_q() const { return n_embd_head * n_head; }
    int n_embd_kv() const { return n_embd_head * n_head_kv; }
    // The scale that attention has where an architecture names no other, and that kernels multiply with.
    float head_scale() const { return 1.0F / std::sqrt(static_cast<float>(n_embd_head)); }
    const layer_params & layer(int il) const { return layers[static_cast<size_t>(il)]; }
};

// Fails with bad_file where a number is missing or impossible, with unsupported where the model is of another kind.
hparams read_hparams(const gguf_file & file);

// ---- for the files in arch/: each reads and checks some keys, alike for all layers ----

// Sizes and head counts, the norms' epsilon, and 1 / sqrt(n_embd_head) as the scale of attention.
void read_shape(const gguf_file & file, hparams & hp);
// The rotation, in one of ggml's two orders of pairs, with linear or yarn scaling. After read_shape.
void read_rope(const gguf_file & file, hparams & hp, int mode);
// The window of attention.sliding_window, where the file has one: on the layers that attention.sliding_window_pattern
// names, by default on all but every `every`-th. After read_shape.
void read_windows(const gguf_file & file, hparams & hp, uint32_t every);
// The base of the rotation by another key, `fallback` where the file has none.
float read_freq_base(const gguf_file & file, const char * key, float fallback);
// A key's truth value; any number but 0 is true.
bool read_flag(const gguf_file & file, const char * key, bool fallback);
// A key's factor, `fallback` where the file has none or 0.
float read_scale(const gguf_file & file, const char * key, float fallback);
// Fails with unsupported where the file has what is no part of a dense model that sees its whole context.
void refuse_experts(const gguf_file & file);
void refuse_windows(const gguf_file & file);

} // namespace lazygguf
