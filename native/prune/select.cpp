// select.cpp: the selection rule.

#include "prune/select.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

namespace lazygguf {
namespace {

bool is_better(const candidate & a, const candidate & b) {
    return a.score != b.score ? a.score > b.score : a.pos < b.pos;
}

bool is_earlier(const candidate & a, const candidate & b) { return a.pos < b.pos; }

} // namespace

void pool_scores(std::vector<candidate> & tokens, int pool) {
    if (pool <= 1) {
        return;
    }
    const int32_t reach = pool / 2;
    std::vector<float> pooled(tokens.size());
    size_t begin = 0;
    size_t end = 0;
    for (size_t i = 0; i < tokens.size(); ++i) {
        while (tokens[begin].pos < tokens[i].pos - reach) {
            ++begin;
        }
        while (end < tokens.size() && tokens[end].pos <= tokens[i].pos + reach) {
            ++end;
        }
        double sum = 0.0;
        for (size_t j = begin; j < end; ++j) {
            sum += tokens[j].score;
        }
        pooled[i] = static_cast<float>(sum / static_cast<double>(end - begin));
    }
    for (size_t i = 0; i < tokens.size(); ++i) {
        tokens[i].score = pooled[i];
    }
}

candidate outside_candidate(int32_t pos, float score, bool is_protected) {
    const bool is_weighed = std::isfinite(score);
    return {pos, is_weighed ? score : 0.0F, !is_weighed || is_protected};
}

int32_t keep_count(double keep, int32_t n_tokens) {
    return static_cast<int32_t>(std::floor(keep * static_cast<double>(n_tokens) + 1e-6));
}

int32_t count_kept(const std::vector<candidate> & tokens, const keep_share & share, int32_t n_tokens) {
    const int32_t most = keep_count(share.keep, n_tokens);
    if (share.mass >= 1.0) {
        return most;
    }
    std::vector<float> scores;
    for (const candidate & t : tokens) {
        if (!t.is_protected) {
            scores.push_back(t.score);
        }
    }
    std::sort(scores.begin(), scores.end(), std::greater<float>());
    const double wanted = share.mass * std::accumulate(scores.begin(), scores.end(), 0.0);
    auto n_kept = static_cast<int32_t>(tokens.size() - scores.size());
    double held = 0.0;
    for (size_t i = 0; i < scores.size() && held < wanted; ++i) {
        held += scores[i];
        ++n_kept;
    }
    return std::clamp(n_kept, keep_count(share.keep_min, n_tokens), most);
}

float worst_score(const std::vector<candidate> & tokens) {
    float worst = 0.0F;
    bool is_first = true;
    for (const candidate & t : tokens) {
        if (!t.is_protected && (is_first || t.score < worst)) {
            worst = t.score;
            is_first = false;
        }
    }
    return worst;
}

std::vector<candidate> best(const std::vector<candidate> & tokens, int32_t n_max) {
    std::vector<candidate> out = tokens;
    if (n_max >= 0 && out.size() > static_cast<size_t>(n_max)) {
        std::nth_element(out.begin(), out.begin() + n_max, out.end(), is_better);
        out.resize(static_cast<size_t>(n_max));
        std::sort(out.begin(), out.end(), is_earlier);
    }
    return out;
}

std::vector<candidate> select(const std::vector<candidate> & tokens, int32_t n_keep) {
    std::vector<candidate> kept;
    std::vector<candidate> rest;
    for (const candidate & t : tokens) {
        (t.is_protected ? kept : rest).push_back(t);
    }
    const auto n_protected = static_cast<int32_t>(kept.size());
    const std::vector<candidate> others = best(rest, std::max(n_keep - n_protected, 0));
    kept.insert(kept.end(), others.begin(), others.end());
    std::inplace_merge(kept.begin(), kept.begin() + n_protected, kept.end(), is_earlier);
    return kept;
}

} // namespace lazygguf
