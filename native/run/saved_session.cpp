// saved_session.cpp: a session as bytes, and back. The state comes first, then the rows; saved_state checks the state.

#include <algorithm>

#include "base/error.h"
#include "run/saved_state.h"
#include "run/session.h"

namespace lazygguf {
namespace {

constexpr int32_t STATE_VERSION = 1; // of the bytes and of what the rows mean

// Bytes of the rows behind a state.
uint64_t row_bytes_of(const saved_state & state, const std::vector<segment_cache> & caches) {
    const std::vector<std::vector<int32_t>> waiting = waiting_rows(state);
    uint64_t n = 0;
    for (size_t s = 0; s < caches.size(); ++s) {
        n += caches[s].saved_bytes(static_cast<size_t>(state.cells[s].n_used()), waiting[s].size());
    }
    return n;
}

} // namespace

state_shape session::shape() const {
    state_shape shape;
    shape.numbers = {STATE_VERSION,   mdl_.hp.n_vocab, mdl_.hp.n_embd,          mdl_.hp.n_embd_kv(), params_.types.k,
                     params_.types.v, params_.n_layer, schedule_.entry ? 1 : 0, n_segments()};
    for (size_t i = 0; i < windows_.size(); ++i) {
        const score_window & window = windows_[i];
        shape.numbers.push_back(segments_[i + 1].il_begin());
        shape.numbers.push_back(window.n_head());
        score_window empty = window;
        empty.trim(0);
        shape.windows.push_back(empty);
    }
    shape.n_vocab = mdl_.hp.n_vocab;
    shape.n_ctx = params_.n_ctx;
    shape.gives_logits = gives_logits();
    return shape;
}

saved_state session::state() const {
    saved_state state = {tokens_, {}, windows_, memory_, result_, mark_};
    for (const segment_cache & seg : segments_) {
        state.cells.push_back(seg.cells);
    }
    return state;
}

uint64_t session::saved_bytes() const {
    const saved_state now = state();
    return sizeof(uint64_t) + write_state(shape(), now).size() + row_bytes_of(now, segments_);
}

void session::save(const byte_sink & sink) const {
    mdl_.links.check();
    const saved_state now = state();
    const std::vector<char> bytes = write_state(shape(), now);
    const uint64_t n_bytes = bytes.size();
    sink(&n_bytes, sizeof(n_bytes));
    sink(bytes.data(), bytes.size());
    const std::vector<std::vector<int32_t>> waiting = waiting_rows(now);
    for (size_t s = 0; s < segments_.size(); ++s) {
        segments_[s].save_rows(waiting[s], sink);
    }
}

// Nothing of the session is touched before all bytes have come and all memory is there.
void session::load(const byte_source & source, uint64_t n_bytes) {
    mdl_.links.check();
    uint64_t n_state = 0;
    if (n_bytes < sizeof(n_state)) {
        fail(status::bad_file,
             format("the saved session ends early: it has %llu bytes", static_cast<unsigned long long>(n_bytes)));
    }
    source(&n_state, sizeof(n_state));
    const uint64_t n_left = n_bytes - sizeof(n_state);
    if (n_state > n_left) {
        fail(status::bad_file,
             format("the saved session ends early: its state has %llu bytes, %llu are left",
                    static_cast<unsigned long long>(n_state), static_cast<unsigned long long>(n_left)));
    }
    std::vector<char> bytes(n_state);
    source(bytes.data(), bytes.size());
    saved_state state = read_state(shape(), bytes);
    const uint64_t n_rows = row_bytes_of(state, segments_);
    if (n_rows != n_left - n_state) {
        fail(status::bad_file,
             format("the saved session is damaged: its rows have %llu bytes, expected %llu",
                    static_cast<unsigned long long>(n_left - n_state), static_cast<unsigned long long>(n_rows)));
    }
    std::vector<segment_cache> segments = load_segments(state, source);
    compute_.forget();
    segments_.swap(segments);
    windows_ = std::move(state.windows);
    tokens_ = std::move(state.tokens);
    n_tokens_ = static_cast<int32_t>(tokens_.size());
    memory_ = std::move(state.memory);
    result_ = std::move(state.result);
    mark_ = std::move(state.mark);
    for (segment_cache & seg : segments) { // the old ones: their devices are told
        seg.clear();
    }
}

std::vector<segment_cache> session::load_segments(saved_state & state, const byte_source & source) const {
    const std::vector<std::vector<int32_t>> waiting = waiting_rows(state);
    std::vector<segment_cache> out;
    for (size_t s = 0; s < segments_.size(); ++s) {
        out.push_back(segments_[s].emptied());
        out[s].load_rows(std::move(state.cells[s]), waiting[s], source, static_cast<int64_t>(state.tokens.size()),
                         params_.n_ctx);
    }
    return out;
}

} // namespace lazygguf
