// cache.cpp: growth of K/V and aux memory.

#include "run/cache.h"

#include <algorithm>

#include "base/error.h"

namespace lazygguf {
namespace {

constexpr int64_t ROW_PAD = 256; // llama.cpp pads n_kv alike

constexpr size_t STAGED_BYTES = size_t{4} << 20; // that go to or from a device at once

int64_t pad_rows(int64_t n) { return (n + ROW_PAD - 1) / ROW_PAD * ROW_PAD; }

// Growing copies, so a little is taken ahead; never more than the context can fill.
int64_t with_slack(int64_t n_rows, int64_t n_max) {
    return std::min(pad_rows(n_rows + n_rows / 16), pad_rows(std::max(n_rows, n_max)));
}

// Calls visit(first, n) for each run of rows that follow one another.
template <typename F> void for_runs(const std::vector<int32_t> & rows, F && visit) {
    for (size_t begin = 0; begin < rows.size();) {
        size_t end = begin + 1;
        while (end < rows.size() && rows[end] == rows[end - 1] + 1) {
            ++end;
        }
        visit(rows[begin], static_cast<int64_t>(end - begin));
        begin = end;
    }
}

// Calls visit(offset, n) for the bytes of each run of a tensor's rows, in pieces of at most n_most bytes.
template <typename F> void for_bytes(const std::vector<int32_t> & rows, size_t row_bytes, size_t n_most, F && visit) {
    for_runs(rows, [&](int32_t first, int64_t n_rows) {
        const size_t begin = static_cast<size_t>(first) * row_bytes;
        const size_t end = begin + static_cast<size_t>(n_rows) * row_bytes;
        for (size_t at = begin; at < end; at += n_most) {
            visit(at, std::min(n_most, end - at));
        }
    });
}

} // namespace

growing_tensor::growing_tensor(ggml_backend_dev_t dev, ggml_type type, int64_t ne0, const char * name)
    : dev_(dev), type_(type), ne0_(ne0), name_(name) {}

void growing_tensor::grow(int64_t n_rows) {
    if (n_rows <= capacity()) {
        return;
    }
    context_ptr ctx = make_tensor_context(4);
    ggml_tensor * t = ggml_new_tensor_2d(ctx.get(), type_, ne0_, n_rows);
    ggml_set_name(t, name_);
    ggml_backend_buffer_ptr buffer(
        ggml_backend_alloc_ctx_tensors_from_buft(ctx.get(), ggml_backend_dev_buffer_type(dev_)));
    if (!buffer) {
        fail(status::no_memory, format("cannot allocate %zu bytes for %s rows on %s; a smaller n_ctx or "
                                       "type_k/type_v 'q8_0' needs less",
                                       ggml_nbytes(t), name_, ggml_backend_dev_name(dev_)));
    }
    ggml_backend_buffer_clear(buffer.get(), 0); // attention may load hidden rows: they must be finite
    if (tensor_ != nullptr) {
        ggml_tensor * head = ggml_view_2d(ctx.get(), t, ne0_, tensor_->ne[1], t->nb[1], 0);
        ggml_backend_view_init(head);
        ggml_backend_tensor_copy(tensor_, head);
    }
    replace(std::move(ctx), std::move(buffer), t);
}

void growing_tensor::replace(context_ptr ctx, ggml_backend_buffer_ptr buffer, ggml_tensor * tensor) {
    if (buffer_ && is_rpc(dev_)) {
        note_rpc_buffer_freed();
    }
    tensor_ = tensor;
    ctx_ = std::move(ctx);
    buffer_ = std::move(buffer);
}

void growing_tensor::clear() { replace({}, {}, nullptr); }

void growing_tensor::zero_rows(int64_t begin, int64_t end) {
    end = std::min(end, capacity());
    if (begin < end) {
        const size_t row = tensor_->nb[1];
        ggml_backend_tensor_memset(tensor_, 0, static_cast<size_t>(begin) * row,
                                   static_cast<size_t>(end - begin) * row);
    }
}

void growing_tensor::save_rows(const std::vector<int32_t> & rows, const byte_sink & sink) const {
    const bool is_here = !rows.empty() && ggml_backend_buffer_is_host(buffer_.get());
    std::vector<char> staged;
    for_bytes(rows, row_bytes(), STAGED_BYTES, [&](size_t at, size_t n) {
        if (is_here) {
            sink(static_cast<const char *>(tensor_->data) + at, n);
            return;
        }
        staged.resize(n);
        ggml_backend_tensor_get(tensor_, staged.data(), at, n);
        sink(staged.data(), n);
    });
}

void growing_tensor::load_rows(const std::vector<int32_t> & rows, const byte_source & source) {
    const bool is_here = !rows.empty() && ggml_backend_buffer_is_host(buffer_.get());
    std::vector<char> staged;
    for_bytes(rows, row_bytes(), STAGED_BYTES, [&](size_t at, size_t n) {
        if (is_here) {
            source(static_cast<char *>(tensor_->data) + at, n);
            return;
        }
        staged.resize(n);
        source(staged.data(), n);
        ggml_backend_tensor_set(tensor_, staged.data(), at, n);
    });
}

// Aux rows lie with the layer that makes them: what is pruned does not cross to the next one's device.
segment_cache::segment_cache(const model & mdl, int il_begin, int il_end, cache_types types,
                             const cache_devices & devices)
    : il_begin_(il_begin),
      aux_(devices.aux[static_cast<size_t>(std::max(il_begin - 1, 0))], GGML_TYPE_F32, mdl.hp.n_embd, "aux") {
    for (int il = il_begin; il < il_end; ++il) {
        ggml_backend_dev_t dev = devices.kv[static_cast<size_t>(il)];
        k_.emplace_back(dev, types.k, mdl.hp.n_embd_kv(), "K");
        v_.emplace_back(dev, types.v, mdl.hp.n_embd_kv(), "V");
    }
}

void segment_cache::reserve_rows(int64_t n_rows, int64_t n_max) {
    if (n_rows <= std::min(k_.back().capacity(), v_.back().capacity())) { // the last ones to grow
        return;
    }
    ++generation_;
    const int64_t n = with_slack(n_rows, n_max);
    for (size_t i = 0; i < k_.size(); ++i) {
        k_[i].grow(n);
        v_[i].grow(n);
    }
}

void segment_cache::reserve_aux(int64_t n_tokens, int64_t n_max) {
    if (n_tokens > aux_.capacity()) {
        ++generation_;
        aux_.grow(with_slack(n_tokens, n_max));
    }
}

void segment_cache::erase(const std::vector<int32_t> & positions) {
    std::vector<int32_t> rows;
    for (const int32_t pos : positions) {
        if (cells.has(pos)) {
            rows.push_back(cells.row_of(pos));
            cells.remove(pos);
        }
    }
    std::sort(rows.begin(), rows.end());
    for_runs(rows, [&](int32_t first, int64_t n) { // at once: devices are slow to be asked
        for (size_t i = 0; i < k_.size(); ++i) {
            k_[i].zero_rows(first, first + n);
            v_[i].zero_rows(first, first + n);
        }
    });
}

segment_tensors segment_cache::tensors(const segment_cache * next) const {
    segment_tensors t;
    t.il_begin = il_begin_;
    t.il_end = il_begin_ + n_layers();
    for (size_t i = 0; i < k_.size(); ++i) {
        t.kv.push_back({k_[i].tensor(), v_[i].tensor(), k_[i].dev()});
    }
    t.aux_in = starts_from_aux() ? aux_.tensor() : nullptr;
    t.aux_out = next ? next->aux_.tensor() : nullptr;
    t.aux_in_dev = aux_.dev();
    t.aux_out_dev = next ? next->aux_.dev() : nullptr;
    return t;
}

segment_tensors segment_cache::blank_tensors(const segment_cache * next, int64_t n_rows) const {
    segment_tensors t = tensors(next);
    t.blank = make_tensor_context(2 * k_.size() + 2);
    for (size_t i = 0; i < k_.size(); ++i) {
        t.kv[i].k = k_[i].blank(t.blank.get(), n_rows);
        t.kv[i].v = v_[i].blank(t.blank.get(), n_rows);
    }
    t.aux_in = starts_from_aux() ? aux_.blank(t.blank.get(), n_rows) : nullptr;
    t.aux_out = next ? next->aux_.blank(t.blank.get(), n_rows) : nullptr;
    return t;
}

int32_t segment_cache::n_kv_padded() const { return static_cast<int32_t>(pad_rows(cells.n_rows())); }

segment_cache segment_cache::emptied() const {
    segment_cache out(il_begin_, aux_.emptied());
    for (size_t i = 0; i < k_.size(); ++i) {
        out.k_.push_back(k_[i].emptied());
        out.v_.push_back(v_[i].emptied());
    }
    return out;
}

uint64_t segment_cache::saved_bytes(size_t n_rows, size_t n_waiting) const {
    uint64_t n = n_waiting * aux_.row_bytes();
    for (size_t i = 0; i < k_.size(); ++i) {
        n += n_rows * (k_[i].row_bytes() + v_[i].row_bytes());
    }
    return n;
}

void segment_cache::save_rows(const std::vector<int32_t> & waiting, const byte_sink & sink) const {
    const std::vector<int32_t> rows = cells.used_rows();
    for (size_t i = 0; i < k_.size(); ++i) {
        k_[i].save_rows(rows, sink);
        v_[i].save_rows(rows, sink);
    }
    aux_.save_rows(waiting, sink);
}

void segment_cache::load_rows(cell_map held, const std::vector<int32_t> & waiting, const byte_source & source,
                              int64_t n_tokens, int64_t n_max) {
    cells = std::move(held);
    const std::vector<int32_t> rows = cells.used_rows();
    if (!rows.empty()) {
        reserve_rows(cells.n_rows(), n_max);
    }
    for (size_t i = 0; i < k_.size(); ++i) {
        k_[i].load_rows(rows, source);
        v_[i].load_rows(rows, source);
    }
    if (starts_from_aux() && n_tokens > 0) {
        reserve_aux(n_tokens, n_max);
    }
    aux_.load_rows(waiting, source);
}

size_t segment_cache::kv_bytes() const {
    size_t n = 0;
    for (size_t i = 0; i < k_.size(); ++i) {
        n += k_[i].n_bytes() + v_[i].n_bytes();
    }
    return n;
}

void segment_cache::clear() {
    cells.trim(0);
    for (size_t i = 0; i < k_.size(); ++i) {
        k_[i].clear();
        v_[i].clear();
    }
    aux_.clear();
    ++generation_;
}

} // namespace lazygguf
