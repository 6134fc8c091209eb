// attention_scores.h: how much the asking rows look at every K/V row of a layer.
//
// By the paper's rule (mean over heads) or by single heads, or of every head separately: see score_form. All that a
// row may look at has its K by now, since rows are computed in position order.
#pragma once

#include "graph/graph_state.h"

namespace lazygguf {

// q F32 [n_embd_head, n_head, n_rows], scaled as the layer attends. Adds what `scored` wants to g.scores.
void build_scores(graph_state & g, ggml_tensor * q, int il, const scored_layer & scored);

// A cache tensor [n_embd_kv, n] as [n_embd_head, n_kv, n_head_kv]
ggml_tensor * heads_of(const graph_state & g, ggml_tensor * cache);

} // namespace lazygguf
