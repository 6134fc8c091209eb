// graph_shape.h: what a graph is built from, and what it computes. Plain values, filled by run/.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <ggml-cpp.h>

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

    const kv_tensors & kv_of(int il) const { return kv[static_cast<size_t>(il - il_begin)]; }
    bool is_last_layer(int il) const { return il == il_end - 1 && aux_out == nullptr; }
};

// In which form attention leaves a graph.
enum class score_form {
    by_query,   // F32 [n_kv, n_query], one for each layer's mean or for each of its heads
    every_head, // F32 [n_kv, n_query, n_head], one for each layer
    sum,        // one for each layer: F32 [1, n_kv], the sum over asking rows and heads, or [n_kv, n_query], over heads
};

// What a graph computes. Two equal shapes over the same segment_tensors give the same graph.
struct graph_shape {
    int n_rows = 0;                   // rows of the ubatch
    int n_kv = 0;                     // K/V rows attended to, padded; nobody sees the rest
    bool want_logits = false;         // of the last row; only where the segment ends in logits
    int n_query = 0;                  // rows of the ubatch that ask; 0: no scores
    std::vector<scored_layer> scored; // layers that they ask at, ascending
    score_form form = score_form::by_query;

    // Whom the asking rows ask for at a layer; null where it is not scored.
    const scored_layer * scored_at(int il) const;

    bool operator==(const graph_shape & o) const {
        return n_rows == o.n_rows && n_kv == o.n_kv && want_logits == o.want_logits && n_query == o.n_query &&
               scored == o.scored && form == o.form;
    }
};

// Attention as it leaves a graph.
struct score_output {
    ggml_tensor * t;
    bool by_entry; // is column i the i-th of graph_inputs::live_pos? Otherwise it is K/V row i
};

// Host copies of a graph's inputs.
struct graph_inputs {
    std::vector<int32_t> tokens;     // (n_rows); read where the segment starts from embeddings
    std::vector<int32_t> pos;        // (n_rows) original positions; also the aux rows
    std::vector<int64_t> kv_rows;    // (n_rows) where K and V are written
    std::vector<int32_t> kv_pos;     // (n_kv) position in each K/V row; above all others where nobody may look
    std::vector<int32_t> live_pos;   // positions that have K and V and may be looked at, ascending
    std::vector<int32_t> live_rows;  // K/V row of each
    std::vector<int32_t> query_rows; // (n_query) rows of the ubatch that ask

    // Where the i-th live position stands in an output.
    size_t column_of(size_t i, const score_output & output) const {
        return output.by_entry ? i : static_cast<size_t>(live_rows[i]);
    }
};

} // namespace lazygguf
