// cache.h: the memory of a session, K/V rows by segment and aux rows by segment boundary.
//
// Owns tensors and their growth: memory is taken as rows come, so that a segment that holds few rows costs little.
// Which rows matter to a step is the session's business.
#pragma once

#include <ggml-cpp.h>

#include "devices/context.h"
#include "graph/segment_graph.h"
#include "model/support.h"
#include "prune/cells.h"
#include "run/bytes.h"

namespace lazygguf {

// A 2-D tensor [ne0, n_rows] on one device that grows by rows and keeps its content. Fresh rows are zero.
class growing_tensor {
  public:
    growing_tensor(ggml_backend_dev_t dev, ggml_type type, int64_t ne0, const char * name);

    ggml_tensor * tensor() const { return tensor_; } // null while it has no rows
    int64_t capacity() const { return tensor_ ? tensor_->ne[1] : 0; }
    size_t n_bytes() const { return tensor_ ? ggml_nbytes(tensor_) : 0; }
    ggml_backend_dev_t dev() const { return dev_; }
    ggml_tensor * blank(ggml_context * ctx, int64_t n_rows) const {
        return ggml_new_tensor_2d(ctx, type_, ne0_, n_rows);
    }
    // Fails with NO_MEMORY and leaves the content as it was.
    void grow(int64_t n_rows);
    void zero_rows(int64_t begin, int64_t end); // those it has
    void clear();                               // frees the memory

    growing_tensor emptied() const { return {dev_, type_, ne0_, name_}; } // the same without rows
    size_t row_bytes() const { return ggml_row_size(type_, ne0_); }
    // The content of these rows, which ascend and which it has, out to the sink or in from the source.
    void save_rows(const std::vector<int32_t> & rows, const byte_sink & sink) const;
    void load_rows(const std::vector<int32_t> & rows, const byte_source & source);

  private:
    ggml_backend_dev_t dev_;
    ggml_type type_;
    int64_t ne0_;
    const char * name_;
    context_ptr ctx_;
    ggml_backend_buffer_ptr buffer_;
    ggml_tensor * tensor_ = nullptr;

    void replace(context_ptr ctx, ggml_backend_buffer_ptr buffer, ggml_tensor * tensor);
};

// The memory of one segment: its layers' K/V rows, its cell map, and the aux rows it starts from.
class segment_cache {
  public:
    segment_cache(const model & mdl, int il_begin, int il_end, cache_types types, const cache_devices & devices);

    cell_map cells;

    int il_begin() const { return il_begin_; }
    int n_layers() const { return static_cast<int>(k_.size()); }
    bool starts_from_aux() const { return il_begin_ > 0; }

    // Makes room for n_rows K/V rows; n_max bounds the slack that is taken ahead.
    void reserve_rows(int64_t n_rows, int64_t n_max);
    // Makes room for the aux rows of positions below n_tokens.
    void reserve_aux(int64_t n_tokens, int64_t n_max);
    // Takes positions out and zeroes their rows: a NaN left in a hidden row would come through the mask.
    void erase(const std::vector<int32_t> & positions);
    // Tensors for the graph. `next` is the segment after this one, null for the last.
    segment_tensors tensors(const segment_cache * next) const;
    // The same without memory, of n_rows rows, for graphs that are not run.
    segment_tensors blank_tensors(const segment_cache * next, int64_t n_rows) const;
    // K/V rows a graph attends to: the used ones, padded so that a graph's shape lasts for many decode steps.
    int32_t n_kv_padded() const;
    // Changes whenever a tensor moved, so that graphs over the old ones are dropped.
    uint64_t generation() const { return generation_; }

    // The same layers on the same devices, holding nothing.
    segment_cache emptied() const;
    // The K/V rows that are held, layer by layer, then the aux rows of `waiting`, positions that ascend.
    uint64_t saved_bytes(size_t n_rows, size_t n_waiting) const;
    void save_rows(const std::vector<int32_t> & waiting, const byte_sink & sink) const;
    // Fills an empty cache: the cell map, and rows from what save_rows gave. The context holds n_tokens, and has room
    // for n_max.
    void load_rows(cell_map held, const std::vector<int32_t> & waiting, const byte_source & source, int64_t n_tokens,
                   int64_t n_max);

    size_t kv_bytes() const;
    size_t aux_bytes() const { return aux_.n_bytes(); }
    void clear();

  private:
    int il_begin_;
    std::vector<growing_tensor> k_; // by layer
    std::vector<growing_tensor> v_;
    growing_tensor aux_; // F32 [n_embd, n_pos]
    uint64_t generation_ = 0;

    segment_cache(int il_begin, growing_tensor aux) : il_begin_(il_begin), aux_(std::move(aux)) {}
};

} // namespace lazygguf
