// graph_state.h: what all layers of one segment share while their graph is built.
//
// Filled by segment_graph; layer_builder, masks and scores add nodes through it. Several segments may add to one graph.
#pragma once

#include <deque>
#include <map>
#include <utility>
#include <vector>

#include <ggml-cpp.h>

#include "devices/context.h"
#include "graph/graph_shape.h"
#include "kernels/attention.h"
#include "kernels/matmul.h"
#include "model/model.h"

namespace lazygguf {

// A node and the device that runs it. Nodes that multiply with weights are not listed: they run where the weights lie.
struct placed_node {
    ggml_tensor * node;
    ggml_backend_dev_t dev;
};

// Which mask a layer attends with: that of its device, for its window.
struct mask_key {
    ggml_backend_dev_t dev;
    int n_window;

    bool operator<(const mask_key & o) const { return dev != o.dev ? dev < o.dev : n_window < o.n_window; }
};

// The nodes of one ggml graph, in the order in which they run.
struct graph_nodes {
    explicit graph_nodes(size_t n_max);

    context_ptr ctx;
    ggml_cgraph * gf = nullptr;
    std::vector<placed_node> placed;

    // Adds a node with all that it needs; what is new runs on `dev`.
    void expand(ggml_tensor * t, ggml_backend_dev_t dev);

  private:
    int n_placed_ = 0; // nodes of gf that have their device
};

// Nodes that a segment may need at most.
size_t max_nodes(const segment_tensors & seg, const graph_shape & shape);

struct graph_state {
    graph_state(const model & m, segment_tensors tensors, const graph_shape & s, graph_nodes & to);

    const model & mdl;
    const segment_tensors seg;
    const graph_shape shape;
    graph_nodes & nodes;
    const context_ptr & ctx; // of the nodes

    // inputs
    ggml_tensor * tokens = nullptr;     // I32 [n_rows]; null where the segment starts from aux rows
    ggml_tensor * pos = nullptr;        // I32 [n_rows]
    ggml_tensor * aux_rows = nullptr;   // I64 [n_rows], the positions once more: set_rows wants I64
    ggml_tensor * kv_rows = nullptr;    // I64 [n_rows]
    ggml_tensor * kv_pos = nullptr;     // F32 [n_kv] for masks made on a device, as is the next one
    ggml_tensor * row_pos = nullptr;    // F32 [1, n_rows]
    ggml_tensor * query_rows = nullptr; // I32 [n_query]; null where every row asks
    ggml_tensor * kv_order = nullptr;   // I32 [n_kv], for our own attention: K/V rows by ascending position

    std::map<int, ggml_tensor *> visible;    // I32 [2, n_rows] by window: the entries of kv_order that a row sees
    std::map<mask_key, ggml_tensor *> masks; // F16 [n_kv, n_rows] 0 or -inf, for ggml's attention
    // rows that our kernels multiply, packed once for all matrices of a kind: those with floats, and all others
    std::map<std::pair<const ggml_tensor *, bool>, ggml_tensor *> packed;
    std::deque<matmul_op> matmuls;            // one per node of our kernels
    std::deque<attention_settings> attention; // one per node of our attention

    // outputs
    ggml_tensor * logits = nullptr;   // F32 [n_vocab, 1]
    ggml_tensor * aux_out = nullptr;  // the next segment's aux rows, once these ones are among them
    std::vector<score_output> scores; // by layer, then by head: see score_form

    // Does our own attention run this layer?
    bool has_our_attention(int il) const { return mdl.has_fast_attention(seg.kv_of(il).dev); }

    ggml_tensor * new_input(ggml_type type, int64_t ne0, int64_t ne1, const char * name) const;
    // matrix [n_in, n_out] times x F32 [n_in, n_rows] -> F32 [n_out, n_rows], by our kernels or by ggml's
    ggml_tensor * multiply(ggml_tensor * matrix, ggml_tensor * x);
    void expand(ggml_tensor * t, ggml_backend_dev_t dev) { nodes.expand(t, dev); }
};

// The last n rows of a 2-D tensor, or all where it has fewer.
ggml_tensor * last_rows(ggml_context * ctx, ggml_tensor * t, int64_t n);

} // namespace lazygguf
