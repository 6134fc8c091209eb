// step_graph.cpp: segments chained by their aux rows.

#include "graph/step_graph.h"

#include <algorithm>
#include <utility>

namespace lazygguf {
namespace {

size_t max_nodes_of(const std::vector<graph_part> & parts) {
    size_t n = 0;
    for (const graph_part & part : parts) {
        n += max_nodes(part.seg, part.shape);
    }
    return n;
}

} // namespace

int most_rows(const std::vector<graph_part> & parts) {
    int n = 0;
    for (const graph_part & part : parts) {
        n = std::max(n, part.shape.n_rows);
    }
    return n;
}

step_graph::step_graph(const model & mdl, const std::vector<graph_part> & parts)
    : n_rows_(most_rows(parts)), nodes_(max_nodes_of(parts)) {
    for (const graph_part & part : parts) {
        segment_tensors seg = part.seg;
        if (!parts_.empty()) { // not the bare tensor: an edge says that its rows are written before they are read
            seg.aux_in = parts_.back()->aux_out();
        }
        parts_.push_back(std::make_unique<segment_graph>(mdl, std::move(seg), part.shape, nodes_));
    }
}

bool step_graph::computes(const std::vector<graph_part> & parts) const {
    return std::equal(parts_.begin(), parts_.end(), parts.begin(), parts.end(),
                      [](const auto & built, const graph_part & part) { return built->shape() == part.shape; });
}

std::vector<ggml_tensor *> step_graph::outputs() const {
    std::vector<ggml_tensor *> out;
    for (const auto & part : parts_) {
        for (const score_output & scores : part->scores()) {
            out.push_back(scores.t);
        }
        if (part->logits() != nullptr) {
            out.push_back(part->logits());
        }
    }
    return out;
}

} // namespace lazygguf
