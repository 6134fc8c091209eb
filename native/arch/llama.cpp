// llama.cpp: the Llama family: Llama 1 to 3, SmolLM2, TinyLlama, Mistral without sliding window.
//
// Rotates pairs (2i, 2i+1): the converter has put the rows of Q and K into that order. Llama 3.1 divides the
// frequencies by rope_freqs.weight.

#include "arch/arch.h"
#include "graph/layer_builder.h"

namespace lazygguf {
namespace {

void keys(const gguf_file & file, hparams & hp) {
    refuse_experts(file);
    refuse_windows(file);
    read_shape(file, hp);
    read_rope(file, hp, GGML_ROPE_TYPE_NORMAL);
}

void tensors(tensor_list & list, layer_weights & w, const hparams & hp) {
    list.rope_freqs(hp.layers.front().rope.n_rot / 2);
    list.vector("attn_norm", w.attn_norm, hp.n_embd);
    list.matrix("attn_q", w.wq, hp.n_embd, hp.n_embd_q(), bias::optional);
    list.matrix("attn_k", w.wk, hp.n_embd, hp.n_embd_kv(), bias::optional);
    list.matrix("attn_v", w.wv, hp.n_embd, hp.n_embd_kv(), bias::optional);
    list.matrix("attn_output", w.wo, hp.n_embd_q(), hp.n_embd, bias::optional);
    list.vector("ffn_norm", w.ffn_norm, hp.n_embd);
    list.matrix("ffn_gate", w.ffn_gate, hp.n_embd, hp.n_ff);
    list.matrix("ffn_up", w.ffn_up, hp.n_embd, hp.n_ff);
    list.matrix("ffn_down", w.ffn_down, hp.n_ff, hp.n_embd);
}

hidden layer(layer_builder & b, const hidden & inp) {
    const layer_weights & w = b.weights();
    const hidden x = b.norm(inp, w.attn_norm);
    const hidden q = b.rope(b.heads(w.wq, x));
    const hidden k = b.rope(b.heads(w.wk, x));
    const hidden h = b.add(inp, b.linear(w.wo, b.attend(q, k, b.heads(w.wv, x))));
    return b.add(h, b.swiglu(b.norm(h, w.ffn_norm)));
}

} // namespace

const architecture LLAMA = {"llama", "Llama 1/2/3, SmolLM2, TinyLlama, Mistral without sliding window", keys, tensors,
                            layer};

} // namespace lazygguf
