// session_state.cpp: what a session remembers, and how it goes back: after a failed step, to a prefix, to a mark, to
// nothing.

#include <algorithm>
#include <iterator>
#include <set>

#include "base/error.h"
#include "run/session.h"
#include "run/step.h"

namespace lazygguf {

void session::roll_back(const step & st) {
    const bool lost = !mdl_.links.lost().empty(); // no step will come, and ggml must not be asked for that memory
    for (size_t s = 0; s < segments_.size(); ++s) {
        if (!lost) {
            segments_[s].erase(st.added[s]);
        }
    }
    for (score_window & window : windows_) {
        window.trim(st.plan.extent.n_past);
    }
    tokens_.resize(static_cast<size_t>(st.plan.extent.n_past));
}

std::vector<float> session::asked_by(int s, position_span asking) const {
    const auto point = static_cast<size_t>(s);
    return point < windows_.size() ? windows_[point].asked_by(asking, n_tokens_) : std::vector<float>();
}

void session::reset() {
    mdl_.links.check();
    compute_.forget();
    for (segment_cache & seg : segments_) {
        seg.clear();
    }
    for (score_window & window : windows_) {
        window.trim(0);
    }
    n_tokens_ = 0;
    tokens_.clear();
    memory_ = {};
    result_ = {};
    mark_ = {};
}

void session::mark() {
    mark_ = {n_tokens_, {}, windows_, memory_, result_};
    for (const segment_cache & seg : segments_) {
        mark_.held.push_back(seg.cells.positions());
    }
}

// The session holds more tokens than the mark.
void session::go_back() {
    for (size_t s = 0; s < segments_.size(); ++s) {
        const std::vector<int32_t> now = segments_[s].cells.positions();
        std::vector<int32_t> gone;
        std::set_difference(now.begin(), now.end(), mark_.held[s].begin(), mark_.held[s].end(),
                            std::back_inserter(gone));
        segments_[s].erase(gone);
    }
    windows_ = mark_.windows;
    memory_ = mark_.memory;
    result_ = mark_.result;
    n_tokens_ = mark_.n_tokens;
    tokens_.resize(static_cast<size_t>(n_tokens_));
}

void session::trim(int32_t n_tokens) {
    if (n_tokens < 0 || n_tokens > n_tokens_) {
        fail(status::invalid_argument, format("trim to %d tokens, expected a value in [0, %d]", n_tokens, n_tokens_));
    }
    if (n_tokens == n_tokens_) {
        return;
    }
    if (n_tokens == mark_.n_tokens) {
        go_back();
        return;
    }
    if (n_tokens < mark_.n_tokens) {
        mark_ = {};
    }
    for (segment_cache & seg : segments_) {
        seg.cells.trim(n_tokens);
    }
    for (score_window & window : windows_) {
        window.trim(n_tokens);
    }
    n_tokens_ = n_tokens;
    tokens_.resize(static_cast<size_t>(n_tokens));
    memory_ = trimmed(schedule_, memory_, n_tokens);
    result_.logits.clear();
    result_.segments.clear();
}

// Tokens next to an unread gap were computed without it; they are dropped here so they can be computed again.
void session::forget(const int32_t * positions, int32_t n) {
    if (!schedule_.entry) {
        fail(status::invalid_argument, "tokens can be forgotten only where they can wait before layer 0 (il -1)");
    }
    for (int32_t i = 0; i < n; ++i) {
        if (positions[i] < 0 || positions[i] >= n_tokens_ - 1) {
            fail(status::invalid_argument,
                 format("position %d is to be forgotten, expected a value in [0, %d]", positions[i], n_tokens_ - 2));
        }
    }
    mdl_.links.check();
    mark_ = {};
    for (segment_cache & seg : segments_) {
        seg.erase({positions, positions + n});
    }
    const std::set<int32_t> gone(positions, positions + n);
    const auto is_gone = [&](int32_t pos) { return gone.count(pos) > 0; };
    std::vector<int32_t> & entered = memory_.entered;
    entered.erase(std::remove_if(entered.begin(), entered.end(), is_gone), entered.end());
    memory_.next = {};
}

} // namespace lazygguf
