// scores.cpp: combining the attention of several tokens and heads.

#include "prune/scores.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "prune/positions.h"

namespace lazygguf {

void score_window::add(int32_t pos, attention_rows by_head) {
    add(pos, std::make_shared<const attention_rows>(std::move(by_head)));
}

void score_window::add(int32_t pos, std::shared_ptr<const attention_rows> by_head) {
    if (contains(partial_.asking, pos)) {
        partial_ = {};
    }
    rows_[pos] = std::move(by_head);
}

void score_window::keep_only(const std::vector<int32_t> & positions) {
    for (auto it = rows_.begin(); it != rows_.end();) {
        const bool stays = contains(positions, it->first);
        it = stays ? std::next(it) : rows_.erase(it);
    }
}

void score_window::trim(int32_t n_tokens) {
    rows_.erase(rows_.lower_bound(n_tokens), rows_.end());
    if (!partial_.asking.empty() && partial_.asking.back() >= n_tokens) {
        partial_ = {};
    }
}

void score_window::add_row(std::vector<double> & sum, int32_t pos, size_t head) const {
    const std::vector<float> & row = (*rows_.at(pos))[head];
    sum.resize(std::max(sum.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) {
        const bool is_max = query_max_ && !std::isnan(row[i]); // NaN must come through
        sum[i] = is_max ? std::max<double>(sum[i], row[i]) : sum[i] + row[i];
    }
}

// In the order of the askers, so that the sums are the same bits whether they were there already or not.
const score_window::partial & score_window::partial_of(const std::vector<int32_t> & asking) const {
    if (partial_.asking != asking || asking.empty()) {
        partial_.asking = asking;
        partial_.sums.assign(static_cast<size_t>(n_head_), {});
        for (size_t h = 0; h < partial_.sums.size(); ++h) {
            for (const int32_t pos : asking) {
                add_row(partial_.sums[h], pos, h);
            }
        }
    }
    return partial_;
}

std::vector<float> score_window::combine(const std::vector<int32_t> & asking, int32_t n_tokens) const {
    std::vector<float> best(static_cast<size_t>(n_tokens), 0.0F);
    if (asking.empty()) {
        return best;
    }
    const partial & before = partial_of({asking.begin(), asking.end() - 1});
    for (size_t h = 0; h < static_cast<size_t>(n_head_); ++h) {
        std::vector<double> sum = before.sums[h];
        add_row(sum, asking.back(), h);
        raise_to(best, sum, asking.size());
    }
    return best;
}

// Takes a head's score where it is the best so far.
void score_window::raise_to(std::vector<float> & best, const std::vector<double> & sum, size_t n_asking) const {
    const double n = query_max_ ? 1.0 : static_cast<double>(n_asking);
    for (size_t i = 0; i < sum.size(); ++i) {
        const auto score = static_cast<float>(sum[i] / n);
        best[i] = std::isnan(score) ? score : std::max(best[i], score);
    }
}

std::vector<float> score_window::asked_by(position_span asking, int32_t n_tokens) const {
    std::vector<int32_t> askers = positions_of(asking);
    askers.erase(std::remove_if(askers.begin(), askers.end(), [&](int32_t pos) { return !has(pos); }), askers.end());
    if (askers.empty()) {
        return {};
    }
    std::vector<float> best(static_cast<size_t>(n_tokens), 0.0F);
    for (size_t h = 0; h < static_cast<size_t>(n_head_); ++h) {
        std::vector<double> sum;
        for (const int32_t pos : askers) {
            add_row(sum, pos, h);
        }
        raise_to(best, sum, askers.size());
    }
    return best;
}

} // namespace lazygguf
