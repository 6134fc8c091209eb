// gemma3.cpp: Gemma 3, text: a norm before and after attention and the feed-forward network, norms of each head's Q and
// K, GELU. Embeddings are scaled by sqrt(n_embd). Five of six layers see a window and rotate by a base of their own,
// without scaling. Rotates pairs (i, i + n_rot/2).

#include <cmath>

#include "arch/arch.h"
#include "graph/layer_builder.h"

namespace lazygguf {
namespace {

constexpr int N_LAYER_27B = 62; // scales attention by n_embd / n_head instead of a head's width

void keys(const gguf_file & file, hparams & hp) {
    refuse_experts(file);
    read_shape(file, hp);
    read_rope(file, hp, GGML_ROPE_TYPE_NEOX);
    read_windows(file, hp, 6);
    hp.embd_scale = std::sqrt(static_cast<float>(hp.n_embd));
    hp.logit_softcap = read_scale(file, "final_logit_softcapping", 0.0F);
    const float window_base = read_freq_base(file, "rope.freq_base_swa", 10000.0F);
    for (layer_params & layer : hp.layers) {
        if (layer.n_window > 0) {
            layer.rope.freq_base = window_base;
            layer.rope.freq_scale = 1.0F;
        }
        if (hp.n_layer == N_LAYER_27B) {
            layer.attn_scale = 1.0F / std::sqrt(static_cast<float>(hp.n_embd / hp.n_head));
        }
    }
}

void tensors(tensor_list & list, layer_weights & w, const hparams & hp) {
    list.vector("attn_norm", w.attn_norm, hp.n_embd);
    list.matrix("attn_q", w.wq, hp.n_embd, hp.n_embd_q());
    list.vector("attn_q_norm", w.q_norm, hp.n_embd_head);
    list.matrix("attn_k", w.wk, hp.n_embd, hp.n_embd_kv());
    list.vector("attn_k_norm", w.k_norm, hp.n_embd_head);
    list.matrix("attn_v", w.wv, hp.n_embd, hp.n_embd_kv());
    list.matrix("attn_output", w.wo, hp.n_embd_q(), hp.n_embd);
    list.vector("post_attention_norm", w.attn_post, hp.n_embd);
    list.vector("ffn_norm", w.ffn_norm, hp.n_embd);
    list.matrix("ffn_gate", w.ffn_gate, hp.n_embd, hp.n_ff);
    list.matrix("ffn_up", w.ffn_up, hp.n_embd, hp.n_ff);
    list.matrix("ffn_down", w.ffn_down, hp.n_ff, hp.n_embd);
    list.vector("post_ffw_norm", w.ffn_post, hp.n_embd);
}

hidden layer(layer_builder & b, const hidden & inp) {
    const layer_weights & w = b.weights();
    const hidden x = b.norm(inp, w.attn_norm);
    const hidden q = b.rope(b.norm(b.heads(w.wq, x), w.q_norm));
    const hidden k = b.rope(b.norm(b.heads(w.wk, x), w.k_norm));
    const hidden attended = b.linear(w.wo, b.attend(q, k, b.heads(w.wv, x)));
    const hidden h = b.add(inp, b.norm(attended, w.attn_post));
    return b.add(h, b.norm(b.geglu(b.norm(h, w.ffn_norm)), w.ffn_post));
}

} // namespace

const architecture GEMMA3 = {"gemma3", "Gemma 3", keys, tensors, layer};

} // namespace lazygguf
