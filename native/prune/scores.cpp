// scores.cpp: combining the attention of several tokens and heads.

#include "prune/scores.h"

#include <algorithm>
#include <cmath>

namespace lazygguf {

void score_window::keep_only(const std::vector<int32_t> & positions) {
    for (auto it = rows_.begin(); it != rows_.end();) {
        const bool stays = std::binary_search(positions.begin(), positions.end(), it->first);
        it = stays ? std::next(it) : rows_.erase(it);
    }
}

std::vector<float> score_window::combine(const std::vector<int32_t> & asking, int32_t n_tokens) const {
    std::vector<float> best(static_cast<size_t>(n_tokens), 0.0F);
    std::vector<double> sum(static_cast<size_t>(n_tokens));
    const double n = query_max_ ? 1.0 : static_cast<double>(asking.size());
    for (size_t h = 0; h < static_cast<size_t>(n_head_); ++h) {
        std::fill(sum.begin(), sum.end(), 0.0);
        for (const int32_t pos : asking) {
            const std::vector<float> & row = (*rows_.at(pos))[h];
            for (size_t i = 0; i < row.size(); ++i) {
                const bool is_max = query_max_ && !std::isnan(row[i]); // NaN must come through
                sum[i] = is_max ? std::max<double>(sum[i], row[i]) : sum[i] + row[i];
            }
        }
        for (size_t i = 0; i < sum.size(); ++i) {
            const auto score = static_cast<float>(sum[i] / n);
            best[i] = std::isnan(score) ? score : std::max(best[i], score);
        }
    }
    return best;
}

} // namespace lazygguf
