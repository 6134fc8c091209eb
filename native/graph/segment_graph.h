// segment_graph.h: one segment of layers over one ubatch of rows, as nodes of a ggml graph.
//
// Owns the forward pass. Gets tensors and row indices. It has no access to sessions, cell maps or the selection. What
// it adds:
//   rows in (embeddings or aux rows) -> layers, K/V written and attended to -> rows out (aux rows or logits) [->
//   scores]
// What a layer does stands in its architecture's file (arch/).
#pragma once

#include <vector>

#include "graph/graph_state.h"

namespace lazygguf {

class segment_graph {
  public:
    // Adds the segment to `nodes`, which outlive it.
    segment_graph(const model & mdl, segment_tensors seg, const graph_shape & shape, graph_nodes & nodes);

    const graph_shape & shape() const { return g_.shape; }

    // After allocation: copies the inputs to the graph's tensors.
    void set_inputs(const graph_inputs & in) const;

    ggml_tensor * logits() const { return g_.logits; }                     // F32 [n_vocab, 1] or null
    const std::vector<score_output> & scores() const { return g_.scores; } // by layer, then by head: see score_form
    // The next segment's aux rows with those of this ubatch in them: what reads it runs after they were written. Null
    // where the segment ends in logits, or in nothing.
    ggml_tensor * aux_out() const { return g_.aux_out; }

  private:
    graph_state g_;

    void build_inputs();
    void build();
    ggml_tensor * build_embeddings() const;
    void build_logits(ggml_tensor * cur);
};

} // namespace lazygguf
