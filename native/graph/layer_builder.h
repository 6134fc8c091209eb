// layer_builder.h: the operations from which a file in arch/ builds a layer.
//
// Each call adds to the graph what its name says, with the weights and settings of one layer. Owns what a layer need
// not know: which device runs a node, in which form a matrix is multiplied, that K and V are written before they are
// read, that scores are taken, and that the model's last layer goes on with the row alone whose logits are wanted.
#pragma once

#include "graph/graph_state.h"

namespace lazygguf {

// Rows of numbers on their way through a layer, one for each token of the ubatch in its last dimension.
struct hidden {
    ggml_tensor * all; // of every token: K and V are made from these
    // Rows whose output is needed: all, except in the model's last layer (the last rows only). Nodes nobody reads are
    // not run.
    ggml_tensor * wanted;
};

class layer_builder {
  public:
    layer_builder(graph_state & g, int il);

    const layer_weights & weights() const { return weights_; }
    const layer_params & params() const { return params_; }

    // inp F32 [n_embd, n_rows], the layer's input
    hidden input(ggml_tensor * inp) const;

    // x F32 [n, ...], weight F32 [n] -> RMS norm over the first dimension, times the weight
    hidden norm(const hidden & x, ggml_tensor * weight) const;
    // x F32 [n_in, n_rows] -> F32 [n_out, n_rows], with the bias where there is one
    hidden linear(const linear_weights & w, const hidden & x);
    // The same as F32 [n_embd_head, heads, n_rows]
    hidden heads(const linear_weights & w, const hidden & x) { return split(linear(w, x)); }
    // x F32 [n_embd_head * heads, n_rows] -> F32 [n_embd_head, heads, n_rows]
    hidden split(const hidden & x) const;
    // x times a number
    hidden scale(const hidden & x, float factor) const;
    // x F32 [n_embd_head, heads, n_rows], rotated by the original positions
    hidden rope(const hidden & x) const;
    // q F32 [n_embd_head, n_head, n_rows], k and v F32 [n_embd_head, n_head_kv, n_rows] -> F32 [n_embd_q, n_rows].
    // Writes K and V to the cache and attends to what is there.
    hidden attend(const hidden & q, const hidden & k, const hidden & v);
    // a + b, over the wanted rows; if one has fewer, over its last ones
    hidden add(const hidden & a, const hidden & b) const;
    // x F32 [n_embd, n_rows] -> F32 [n_embd, n_rows], by ffn_gate, ffn_up and ffn_down: SiLU, or GELU by its tanh form
    hidden swiglu(const hidden & x) { return gated(x, GGML_GLU_OP_SWIGLU); }
    hidden geglu(const hidden & x) { return gated(x, GGML_GLU_OP_GEGLU); }

  private:
    graph_state & g_;
    int il_;
    const layer_params & params_;
    const layer_weights & weights_;
    const kv_tensors & kv_;
    ggml_backend_dev_t dev_;
    bool is_last_; // the model's last layer that this session runs

    ggml_context * ctx() const { return g_.ctx.get(); }
    ggml_tensor * multiply(const linear_weights & w, ggml_tensor * x);
    hidden gated(const hidden & x, ggml_glu_op activation);
    void write(ggml_tensor * k, ggml_tensor * v);
    ggml_tensor * read(ggml_tensor * q);
};

} // namespace lazygguf
