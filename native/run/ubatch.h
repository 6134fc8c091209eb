// ubatch.h: what one ubatch of a step gives to its graph.
//
// Owns the inputs: which cache row each token takes, what it may see, who asks. Host data only.
#pragma once

#include <cstdint>
#include <vector>

#include "graph/segment_graph.h"
#include "prune/cells.h"
#include "prune/positions.h"

namespace lazygguf {

// The rows of one ubatch in one segment. Positions ascend.
struct ubatch {
    const cell_map & cells;
    const std::vector<int32_t> & tokens; // ids of the whole context, by position; read where the segment embeds them
    const std::vector<int32_t> & live;   // positions live in the segment
    const std::vector<int32_t> & query;  // positions that ask, in this ubatch or not
    std::vector<int32_t> pos;            // (n_rows) to compute
};

// The positions of a ubatch that ask.
int count_queries(const ubatch & u);

graph_inputs inputs_of(const ubatch & u, const graph_shape & shape);

} // namespace lazygguf
