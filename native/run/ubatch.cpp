// ubatch.cpp: rows, what they may see, and asking rows of a ubatch.

#include "run/ubatch.h"

#include <algorithm>
#include <limits>

namespace lazygguf {
namespace {

constexpr int32_t HIDDEN = std::numeric_limits<int32_t>::max();

// The live positions and their K/V rows, and the position held by each row: HIDDEN where the row is free, padding, or
// not live in this step. A live position that is computed in a later ubatch has no row yet; it is later than all that
// ask now.
void set_live(graph_inputs & in, const ubatch & u, int32_t n_kv) {
    in.kv_pos.assign(static_cast<size_t>(n_kv), HIDDEN);
    for (const int32_t pos : u.live) {
        if (const int32_t row = u.cells.row_of(pos); row >= 0) {
            in.live_pos.push_back(pos);
            in.live_rows.push_back(row);
            in.kv_pos[static_cast<size_t>(row)] = pos;
        }
    }
}

} // namespace

int count_queries(const ubatch & u) {
    return static_cast<int>(
        std::count_if(u.pos.begin(), u.pos.end(), [&](int32_t pos) { return contains(u.query, pos); }));
}

graph_inputs inputs_of(const ubatch & u, const graph_shape & shape) {
    graph_inputs in;
    in.pos = u.pos;
    for (const int32_t pos : in.pos) {
        in.kv_rows.push_back(u.cells.row_of(pos));
        in.tokens.push_back(u.tokens[static_cast<size_t>(pos)]);
    }
    set_live(in, u, shape.n_kv);
    for (size_t i = 0; shape.n_query > 0 && i < in.pos.size(); ++i) {
        if (contains(u.query, in.pos[i])) {
            in.query_rows.push_back(static_cast<int32_t>(i));
        }
    }
    return in;
}

} // namespace lazygguf
