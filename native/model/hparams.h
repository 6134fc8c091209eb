// hparams.h: the numbers that say what a model looks like, read from a GGUF file and checked.
//
// Owns the meaning and the limits of the `<arch>.*` keys. After read_hparams() every number is safe to build tensors
// and graphs from. Knows nothing about weights.
#pragma once

#include <string>

#include "file/gguf_file.h"

namespace lazygguf {

struct rope_params {
    int n_rot = 0; // rotated dimensions of a head
    int mode = 0;  // GGML_ROPE_TYPE_NORMAL (pairs 2i, 2i+1) or GGML_ROPE_TYPE_NEOX (pairs i, i + n_rot/2)
    int n_ctx_orig = 0;
    float freq_base = 10000.0F;
    float freq_scale = 1.0F;
    float ext_factor = 0.0F; // 1: yarn
    float attn_factor = 1.0F;
    float beta_fast = 32.0F;
    float beta_slow = 1.0F;
};

struct hparams {
    std::string arch;
    int n_vocab = 0; // rows of token_embd
    int n_ctx_train = 0;
    int n_embd = 0;
    int n_layer = 0;
    int n_head = 0;
    int n_head_kv = 0;
    int n_embd_head = 0;
    int n_ff = 0;
    float rms_eps = 0.0F;
    rope_params rope;

    int n_embd_q() const { return n_embd_head * n_head; }
    int n_embd_kv() const { return n_embd_head * n_head_kv; }
};

// Fails with BAD_FILE where a number is missing or impossible, with UNSUPPORTED where the model is of another kind.
hparams read_hparams(const gguf_file & file);

} // namespace lazygguf
