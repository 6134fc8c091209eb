// segment_graph.h: the ggml graph of one segment of layers over one ubatch of rows.
//
// Owns the forward pass. Gets tensors and row indices; knows neither sessions nor cell maps nor selection. One graph:
//   rows in (embeddings or aux rows) -> layers, K/V written and attended to -> rows out (aux rows or logits) [->
//   scores]
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include <ggml-cpp.h>

#include "kernels/matmul.h"
#include "model/model.h"
#include "prune/schedule.h"

namespace lazygguf {

struct kv_tensors {
    ggml_tensor * k = nullptr;        // [n_embd_kv, n_rows]
    ggml_tensor * v = nullptr;        // [n_embd_kv, n_rows]
    ggml_backend_dev_t dev = nullptr; // where both lie; attention runs there
};

// The tensors a segment reads and writes; all of them outlive the graph.
struct segment_tensors {
    int il_begin = 0; // layers [il_begin, il_end)
    int il_end = 0;
    std::vector<kv_tensors> kv;      // by layer of the segment
    ggml_tensor * aux_in = nullptr;  // F32 [n_embd, n_pos]; null: the segment starts from embeddings
    ggml_tensor * aux_out = nullptr; // F32 [n_embd, n_pos]; null: the segment ends in logits, or in nothing
    ggml_backend_dev_t aux_in_dev = nullptr;
    ggml_backend_dev_t aux_out_dev = nullptr;
    std::shared_ptr<ggml_context> blank; // holds the tensors where they are without memory
};

// In which form attention leaves a graph.
enum class score_form {
    by_query,   // F32 [n_kv, n_query], one for each layer's mean or for each of its heads
    every_head, // F32 [n_kv, n_query, n_head], one for each layer
    sum,        // F32 [1, n_kv], one for each layer: the sum over asking rows and heads
};

// What a graph computes. Two equal shapes over the same segment_tensors give the same graph.
struct graph_shape {
    int n_rows = 0;                   // rows of the ubatch
    int n_kv = 0;                     // K/V rows attended to, padded; the mask hides the rest
    bool want_logits = false;         // of the last row; only where the segment ends in logits
    int n_query = 0;                  // rows of the ubatch that ask; 0: no scores
    std::vector<scored_layer> scored; // layers that they ask at, ascending
    score_form form = score_form::by_query;

    bool operator==(const graph_shape & o) const {
        return n_rows == o.n_rows && n_kv == o.n_kv && want_logits == o.want_logits && n_query == o.n_query &&
               scored == o.scored && form == o.form;
    }
};

// Rows that matrices are multiplied with; packed once for all of them where our kernel does it.
struct linear_input {
    ggml_tensor * rows;
    ggml_tensor * packed = nullptr;

    explicit linear_input(ggml_tensor * cur) : rows(cur) {}
};

// Host copies of a graph's inputs.
struct graph_inputs {
    std::vector<int32_t> tokens;     // (n_rows); read where the segment starts from embeddings
    std::vector<int32_t> pos;        // (n_rows) original positions; also the aux rows
    std::vector<int64_t> kv_rows;    // (n_rows) where K and V are written
    std::vector<int32_t> kv_pos;     // (n_kv) position in each K/V row; above all others where nobody may look
    std::vector<int32_t> query_rows; // (n_query) rows of the ubatch that ask
};

// A node and the device that runs it. Nodes that multiply with weights are not listed: they run where the weights lie.
struct placed_node {
    ggml_tensor * node;
    ggml_backend_dev_t dev;
};

class segment_graph {
  public:
    segment_graph(const model & mdl, segment_tensors seg, const graph_shape & shape);

    ggml_cgraph * gf() const { return gf_; }
    const graph_shape & shape() const { return shape_; }
    const std::vector<placed_node> & placed() const { return placed_; }

    // After allocation: copies the inputs to the graph's tensors.
    void set_inputs(const graph_inputs & in) const;

    ggml_tensor * logits() const { return logits_; }                      // F32 [n_vocab, 1] or null
    const std::vector<ggml_tensor *> & scores() const { return scores_; } // by layer, then by head: see score_form

  private:
    const model & mdl_;
    const segment_tensors seg_;
    graph_shape shape_;
    ggml_context_ptr ctx_;
    ggml_cgraph * gf_ = nullptr;
    std::vector<placed_node> placed_;
    int n_placed_ = 0; // nodes of gf_ that have their device

    ggml_tensor * tokens_ = nullptr;   // I32 [n_rows]
    ggml_tensor * pos_ = nullptr;      // I32 [n_rows]
    ggml_tensor * aux_rows_ = nullptr; // I64 [n_rows], the positions once more: set_rows wants I64
    ggml_tensor * kv_rows_ = nullptr;  // I64 [n_rows]
    ggml_tensor * mask_ = nullptr;     // F16 [n_kv, n_rows] 0 or -inf, made on the host; null: no CPU layer
    ggml_tensor * kv_pos_ = nullptr;   // F32 [n_kv] for masks made on a device, as is the next one
    ggml_tensor * row_pos_ = nullptr;  // F32 [1, n_rows]
    std::map<ggml_backend_dev_t, ggml_tensor *> masks_; // by device that attends
    ggml_tensor * query_rows_ = nullptr;                // I32 [n_query]; null where every row asks
    ggml_tensor * logits_ = nullptr;
    std::vector<ggml_tensor *> scores_;
    std::deque<work_queue> queues_; // one per op of our kernel

    ggml_tensor * new_input(ggml_type type, int64_t ne0, int64_t ne1, const char * name);
    void build();
    void build_inputs();
    void place(ggml_backend_dev_t dev);
    void expand(ggml_tensor * t, ggml_backend_dev_t dev);
    void build_masks();
    ggml_tensor * build_mask();
    ggml_tensor * build_norm(ggml_tensor * cur, ggml_tensor * weight);
    ggml_tensor * build_linear(ggml_tensor * weight, ggml_tensor * bias, linear_input & in);
    ggml_tensor * build_rope(ggml_tensor * cur, ggml_tensor * pos, const layer_weights & layer, int n_head);
    ggml_tensor * build_layer(ggml_tensor * inp, int il);
    ggml_tensor * build_q(linear_input & in, ggml_tensor * pos, const layer_weights & layer);
    void build_kv(linear_input & in, const layer_weights & layer, const kv_tensors & kv, ggml_backend_dev_t dev);
    ggml_tensor * build_attention(ggml_tensor * q, const kv_tensors & kv, ggml_tensor * mask);
    ggml_tensor * build_ffn(ggml_tensor * cur, const layer_weights & layer);
    const scored_layer * find_scored(int il) const;
    void build_scores(ggml_tensor * q, const kv_tensors & kv, const scored_layer & scored, ggml_backend_dev_t dev);
    void add_scores(ggml_tensor * scores, ggml_backend_dev_t dev);
    ggml_tensor * build_probs(ggml_tensor * q, ggml_tensor * k, ggml_tensor * mask, ggml_backend_dev_t dev);
    ggml_tensor * build_head_mean(ggml_tensor * probs);
    ggml_tensor * build_sum(ggml_tensor * probs);
    void build_logits(ggml_tensor * cur);
    ggml_tensor * heads_of(ggml_tensor * cache, int64_t n_rows) const;
};

} // namespace lazygguf
