// segment_graph.h: the ggml graph of one segment of layers over one ubatch of rows.
//
// Owns the forward pass. Gets tensors and row indices. It has no access to sessions, cell maps or the selection. One
// graph:
//   rows in (embeddings or aux rows) -> layers, K/V written and attended to -> rows out (aux rows or logits) [->
//   scores]
// What a layer does stands in its architecture's file (arch/).
#pragma once

#include <vector>

#include "graph/graph_state.h"

namespace lazygguf {

class segment_graph {
  public:
    segment_graph(const model & mdl, segment_tensors seg, const graph_shape & shape);

    ggml_cgraph * gf() const { return g_.gf; }
    const graph_shape & shape() const { return g_.shape; }
    const std::vector<placed_node> & placed() const { return g_.placed; }

    // After allocation: copies the inputs to the graph's tensors.
    void set_inputs(const graph_inputs & in) const;

    ggml_tensor * logits() const { return g_.logits; }                     // F32 [n_vocab, 1] or null
    const std::vector<score_output> & scores() const { return g_.scores; } // by layer, then by head: see score_form

  private:
    graph_state g_;

    void build_inputs();
    void build();
    void build_logits(ggml_tensor * cur);
};

} // namespace lazygguf
