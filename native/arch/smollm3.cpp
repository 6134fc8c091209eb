// smollm3.cpp: SmolLM3: a Llama whose every fourth layer does not rotate, which no key of the file says. Rotates pairs
// (2i, 2i+1).

#include "arch/arch.h"
#include "graph/layer_builder.h"

namespace lazygguf {
namespace {

constexpr int NO_ROPE_EVERY = 4;

void keys(const gguf_file & file, hparams & hp) {
    refuse_experts(file);
    refuse_windows(file);
    read_shape(file, hp);
    read_rope(file, hp, GGML_ROPE_TYPE_NORMAL);
    for (int il = NO_ROPE_EVERY - 1; il < hp.n_layer; il += NO_ROPE_EVERY) {
        hp.layers[static_cast<size_t>(il)].rope.n_rot = 0;
    }
}

void tensors(tensor_list & list, layer_weights & w, const hparams & hp) {
    list.vector("attn_norm", w.attn_norm, hp.n_embd);
    list.matrix("attn_q", w.wq, hp.n_embd, hp.n_embd_q(), bias::optional);
    list.matrix("attn_k", w.wk, hp.n_embd, hp.n_embd_kv(), bias::optional);
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
    const hidden q = b.rope(b.heads(w.wq, x));
    const hidden k = b.rope(b.heads(w.wk, x));
    const hidden h = b.add(inp, b.linear(w.wo, b.attend(q, k, b.heads(w.wv, x))));
    return b.add(h, b.swiglu(b.norm(h, w.ffn_norm)));
}

} // namespace

const architecture SMOLLM3 = {"smollm3", "SmolLM3", keys, tensors, layer};

} // namespace lazygguf
