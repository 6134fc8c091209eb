// step_graph.h: the ggml graph of one segment or of several, one after the other.
//
// Owns the order: each segment reads the aux rows that the one before it has written in the same run. So what is
// computed in a segment must be known before the first one runs. Each part has inputs of its own.
#pragma once

#include <memory>
#include <vector>

#include "graph/segment_graph.h"

namespace lazygguf {

// A segment in a graph: what it reads and writes, and what it computes.
struct graph_part {
    segment_tensors seg;
    graph_shape shape;
};

class step_graph {
  public:
    // The parts follow each other in the model.
    step_graph(const model & mdl, const std::vector<graph_part> & parts);

    ggml_cgraph * gf() const { return nodes_.gf; }
    const std::vector<placed_node> & placed() const { return nodes_.placed; }

    size_t n_parts() const { return parts_.size(); }
    const segment_graph & part(size_t i) const { return *parts_[i]; }
    // Does it compute what these parts would?
    bool computes(const std::vector<graph_part> & parts) const;
    // Most rows of any part.
    int n_rows() const { return n_rows_; }
    // All that leaves the graph: scores and logits.
    std::vector<ggml_tensor *> outputs() const;

  private:
    int n_rows_;
    graph_nodes nodes_;
    std::vector<std::unique_ptr<segment_graph>> parts_;
};

// Most rows of any part.
int most_rows(const std::vector<graph_part> & parts);

} // namespace lazygguf
