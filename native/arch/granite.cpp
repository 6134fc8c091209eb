// granite.cpp: Granite 3 and 4, dense: a Llama whose embeddings, attention, additions and logits are scaled by numbers
// of the file. Rotates pairs (2i, 2i+1), or not at all where rope.scaling.finetuned is false.

#include "arch/arch.h"
#include "graph/layer_builder.h"

namespace lazygguf {
namespace {

void keys(const gguf_file & file, hparams & hp) {
    refuse_experts(file);
    refuse_windows(file);
    read_shape(file, hp);
    read_rope(file, hp, GGML_ROPE_TYPE_NORMAL);
    hp.embd_scale = read_scale(file, "embedding_scale", 1.0F);
    hp.logit_scale = 1.0F / read_scale(file, "logit_scale", 1.0F);
    const float attn_scale = read_scale(file, "attention.scale", hp.head_scale());
    const float residual_scale = read_scale(file, "residual_scale", 1.0F);
    const bool rotates = read_flag(file, "rope.scaling.finetuned", true);
    for (layer_params & layer : hp.layers) {
        layer.attn_scale = attn_scale;
        layer.residual_scale = residual_scale;
        layer.rope.n_rot = rotates ? layer.rope.n_rot : 0;
    }
}

void tensors(tensor_list & list, layer_weights & w, const hparams & hp) {
    list.rope_freqs(hp.n_embd_head / 2);
    list.vector("attn_norm", w.attn_norm, hp.n_embd);
    list.matrix("attn_q", w.wq, hp.n_embd, hp.n_embd_q(), bias::optional);
    list.matrix("attn_k", w.wk, hp.n_embd, hp.n_embd_kv(), bias::optional);
    list.matrix("attn_v", w.wv, hp.n_embd, hp.n_embd_kv(), bias::optional);
    list.matrix("attn_output", w.wo, hp.n_embd_q(), hp.n_embd, bias::optional);
    list.vector("ffn_norm", w.ffn_norm, hp.n_embd);
    list.matrix("ffn_gate", w.ffn_gate, hp.n_embd, hp.n_ff, bias::optional);
    list.matrix("ffn_up", w.ffn_up, hp.n_embd, hp.n_ff, bias::optional);
    list.matrix("ffn_down", w.ffn_down, hp.n_ff, hp.n_embd, bias::optional);
}

hidden layer(layer_builder & b, const hidden & inp) {
    const layer_weights & w = b.weights();
    const float scale = b.params().residual_scale;
    const hidden x = b.norm(inp, w.attn_norm);
    const hidden q = b.rope(b.heads(w.wq, x));
    const hidden k = b.rope(b.heads(w.wk, x));
    const hidden attended = b.linear(w.wo, b.attend(q, k, b.heads(w.wv, x)));
    const hidden h = b.add(inp, b.scale(attended, scale));
    return b.add(h, b.scale(b.swiglu(b.norm(h, w.ffn_norm)), scale));
}

} // namespace

const architecture GRANITE = {"granite", "Granite", keys, tensors, layer};

} // namespace lazygguf
