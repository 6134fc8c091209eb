// qwen3.cpp: Qwen3, dense: an RMS norm on each head's Q and K before rope. Rotates pairs (i, i + n_rot/2). A head's
// width stands in the file and need not be n_embd / n_head. Q, K and V have no biases, but may.

#include "arch/arch.h"
#include "graph/layer_builder.h"

namespace lazygguf {
namespace {

void keys(const gguf_file & file, hparams & hp) {
    refuse_experts(file);
    refuse_windows(file);
    read_shape(file, hp);
    read_rope(file, hp, GGML_ROPE_TYPE_NEOX);
}

void tensors(tensor_list & list, layer_weights & w, const hparams & hp) {
    list.vector("attn_norm", w.attn_norm, hp.n_embd);
    list.matrix("attn_q", w.wq, hp.n_embd, hp.n_embd_q(), bias::optional);
    list.vector("attn_q_norm", w.q_norm, hp.n_embd_head);
    list.matrix("attn_k", w.wk, hp.n_embd, hp.n_embd_kv(), bias::optional);
    list.vector("attn_k_norm", w.k_norm, hp.n_embd_head);
    list.matrix("attn_v", w.wv, hp.n_embd, hp.n_embd_kv(), bias::optional);
    list.matrix("attn_output", w.wo, hp.n_embd_q(), hp.n_embd);
    list.vector("ffn_norm", w.ffn_norm, hp.n_embd);
    list.matrix("ffn_gate", w.ffn_gate, hp.n_embd, hp.n_ff);
    list.matrix("ffn_up", w.ffn_up, hp.n_embd, hp.n_ff);
    list.matrix("ffn_down", w.ffn_down, hp.n_ff, hp.n_embd);
}

hidden layer(layer_builder & b, const hidden & inp) {
    const layer_weights & w = b.weights();
    const hidden x = b.norm(inp, w.attn_norm);
    const hidden q = b.rope(b.norm(b.heads(w.wq, x), w.q_norm));
    const hidden k = b.rope(b.norm(b.heads(w.wk, x), w.k_norm));
    const hidden h = b.add(inp, b.linear(w.wo, b.attend(q, k, b.heads(w.wv, x))));
    return b.add(h, b.swiglu(b.norm(h, w.ffn_norm)));
}

} // namespace

const architecture QWEN3 = {"qwen3", "Qwen3", keys, tensors, layer};

} // namespace lazygguf
