// olmo2.cpp: OLMo 2 and 3: no norm before attention and the feed-forward network but one after each, and norms over the
// whole of Q and K. In OLMo 3 three of four layers see a window, and rotate without scaling. Rotates pairs
// (i, i + n_rot/2).

#include "arch/arch.h"
#include "graph/layer_builder.h"

namespace lazygguf {
namespace {

void keys(const gguf_file & file, hparams & hp) {
    refuse_experts(file);
    read_shape(file, hp);
    read_rope(file, hp, GGML_ROPE_TYPE_NEOX);
    read_windows(file, hp, 4);
    for (layer_params & layer : hp.layers) {
        if (layer.n_window > 0) {
            layer.rope.freq_scale = 1.0F;
            layer.rope.ext_factor = 0.0F;
            layer.rope.attn_factor = 1.0F;
        }
    }
}

void tensors(tensor_list & list, layer_weights & w, const hparams & hp) {
    list.matrix("attn_q", w.wq, hp.n_embd, hp.n_embd_q());
    list.vector("attn_q_norm", w.q_norm, hp.n_embd_q());
    list.matrix("attn_k", w.wk, hp.n_embd, hp.n_embd_kv());
    list.vector("attn_k_norm", w.k_norm, hp.n_embd_kv());
    list.matrix("attn_v", w.wv, hp.n_embd, hp.n_embd_kv());
    list.matrix("attn_output", w.wo, hp.n_embd_q(), hp.n_embd);
    list.vector("post_attention_norm", w.attn_post, hp.n_embd);
    list.matrix("ffn_gate", w.ffn_gate, hp.n_embd, hp.n_ff);
    list.matrix("ffn_up", w.ffn_up, hp.n_embd, hp.n_ff);
    list.matrix("ffn_down", w.ffn_down, hp.n_ff, hp.n_embd);
    list.vector("post_ffw_norm", w.ffn_post, hp.n_embd);
}

hidden layer(layer_builder & b, const hidden & inp) {
    const layer_weights & w = b.weights();
    const hidden q = b.rope(b.split(b.norm(b.linear(w.wq, inp), w.q_norm)));
    const hidden k = b.rope(b.split(b.norm(b.linear(w.wk, inp), w.k_norm)));
    const hidden attended = b.linear(w.wo, b.attend(q, k, b.heads(w.wv, inp)));
    const hidden h = b.add(inp, b.norm(attended, w.attn_post));
    return b.add(h, b.norm(b.swiglu(h), w.ffn_post));
}

} // namespace

const architecture OLMO2 = {"olmo2", "OLMo 2, OLMo 3", keys, tensors, layer};

} // namespace lazygguf
