// graph_state.cpp: inputs, and which device runs which node.

#include "graph/graph_state.h"

#include <utility>

namespace lazygguf {
namespace {

// Twice what a layer has: in the last layer every operation may be built for all rows and for the wanted ones.
constexpr int NODES_PER_LAYER = 96;
constexpr int NODES_PER_SCORED_HEAD = 16;

bool is_view(const ggml_tensor * t) {
    return t->op == GGML_OP_NONE || t->op == GGML_OP_VIEW || t->op == GGML_OP_RESHAPE || t->op == GGML_OP_PERMUTE ||
           t->op == GGML_OP_TRANSPOSE;
}

// A node that reads weights runs where they lie; rope is excepted: its frequencies do not decide its device.
bool follows_weights(const ggml_tensor * t) {
    for (int i = 0; i < GGML_MAX_SRC && t->op != GGML_OP_ROPE; ++i) {
        const ggml_tensor * src = t->src[i];
        if (src != nullptr && src->buffer != nullptr &&
            ggml_backend_buffer_get_usage(src->buffer) == GGML_BACKEND_BUFFER_USAGE_WEIGHTS) {
            return true;
        }
    }
    return false;
}

} // namespace

size_t max_nodes(const segment_tensors & seg, const graph_shape & shape) {
    int n_score_parts = 2;
    for (const scored_layer & scored : shape.scored) {
        n_score_parts += 2 + static_cast<int>(scored.heads.size());
    }
    return static_cast<size_t>(160 + (seg.il_end - seg.il_begin) * NODES_PER_LAYER +
                               n_score_parts * NODES_PER_SCORED_HEAD);
}

graph_nodes::graph_nodes(size_t n_max) {
    ctx = make_context(ggml_tensor_overhead() * n_max + ggml_graph_overhead_custom(n_max, false));
    gf = ggml_new_graph_custom(ctx.get(), n_max, false);
}

void graph_nodes::expand(ggml_tensor * t, ggml_backend_dev_t dev) {
    ggml_build_forward_expand(gf, t);
    for (; n_placed_ < ggml_graph_n_nodes(gf); ++n_placed_) {
        ggml_tensor * node = ggml_graph_node(gf, n_placed_);
        if (!is_view(node) && !follows_weights(node)) {
            placed.push_back({node, dev});
        }
    }
}

graph_state::graph_state(const model & m, segment_tensors tensors, const graph_shape & s, graph_nodes & to)
    : mdl(m), seg(std::move(tensors)), shape(s), nodes(to), ctx(to.ctx) {}

ggml_tensor * graph_state::new_input(ggml_type type, int64_t ne0, int64_t ne1, const char * name) const {
    ggml_tensor * t = ggml_new_tensor_2d(ctx.get(), type, ne0, ne1);
    ggml_set_name(t, name);
    ggml_set_input(t);
    return t;
}

ggml_tensor * graph_state::multiply(ggml_tensor * matrix, ggml_tensor * x) {
    const packed_matrix * m = mdl.packed(matrix);
    if (m == nullptr) {
        return ggml_mul_mat(ctx.get(), matrix, x);
    }
    const bool as_floats = takes_floats(m->type);
    ggml_tensor *& rows = packed[{x, as_floats}];
    if (rows == nullptr) {
        rows = build_packed_rows(ctx.get(), x, as_floats);
    }
    return build_matmul(ctx.get(), m->data, rows, matmuls.emplace_back(m->type, m->n_in, m->n_out));
}

ggml_tensor * last_rows(ggml_context * ctx, ggml_tensor * t, int64_t n) {
    return t->ne[1] <= n ? t
                         : ggml_view_2d(ctx, t, t->ne[0], n, t->nb[1], static_cast<size_t>(t->ne[1] - n) * t->nb[1]);
}

} // namespace lazygguf
