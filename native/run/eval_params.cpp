// eval_params.cpp: the checks before a step.

#include "run/eval_params.h"

#include <cmath>

#include "base/error.h"

namespace lazygguf {
namespace {

void check_tokens(const int32_t * tokens, int32_t n, const eval_limits & limits) {
    if (n < 1) {
        fail(status::invalid_argument, format("%d tokens to read, expected at least 1", n));
    }
    for (int32_t i = 0; i < n; ++i) {
        if (tokens[i] < 0 || tokens[i] >= limits.n_vocab) {
            fail(status::invalid_argument,
                 format("token id at index %d is %d, expected a value in [0, %d]", i, tokens[i], limits.n_vocab - 1));
        }
    }
    if (static_cast<int64_t>(limits.n_past) + n > limits.n_ctx) {
        fail(status::context_full, format("%lld tokens do not fit into a context of n_ctx %d (%d held, %d new)",
                                          static_cast<long long>(limits.n_past) + n, limits.n_ctx, limits.n_past, n));
    }
}

void check_attention(const attention_request & wanted, position_span query, int32_t n, const eval_limits & limits) {
    if (wanted.layers.empty()) {
        return;
    }
    if (!limits.schedule.points.empty()) {
        fail(status::invalid_argument,
             "attention is recorded only by sessions without a keep schedule, or with a point before layer 0 alone");
    }
    int before = -1;
    for (const int il : wanted.layers) {
        if (il <= before || il >= limits.n_layer) {
            fail(status::invalid_argument, format("attention of layer %d after %d is wanted, expected ascending "
                                                  "layers in [0, %d]",
                                                  il, before, limits.n_layer - 1));
        }
        before = il;
    }
    const int32_t n_tokens = limits.n_past + n;
    if (query.begin < limits.n_past || query.end > n_tokens || query.is_empty() ||
        query.end - query.begin > MAX_QUERY) {
        fail(status::invalid_argument, format("the query span is [%d, %d), expected 1 to %d of the new tokens, "
                                              "[%d, %d)",
                                              query.begin, query.end, MAX_QUERY, limits.n_past, n_tokens));
    }
    const int64_t n_rows =
        (wanted.by_query ? query.end - query.begin : 1) * static_cast<int64_t>(wanted.by_head ? limits.n_head : 1);
    const int64_t n_out = static_cast<int64_t>(wanted.layers.size()) * n_rows * n_tokens;
    if (wanted.n_out != n_out) {
        fail(status::invalid_argument, format("room for %lld numbers of attention, expected %lld",
                                              static_cast<long long>(wanted.n_out), static_cast<long long>(n_out)));
    }
}

void check_protected(const std::vector<int32_t> & protect, int32_t n_tokens) {
    for (size_t i = 0; i < protect.size(); ++i) {
        const int32_t pos = protect[i];
        if (pos < (i == 0 ? 0 : protect[i - 1] + 1) || pos >= n_tokens) {
            fail(status::invalid_argument, format("protected position %d at index %zu, expected ascending positions "
                                                  "in [0, %d]",
                                                  pos, i, n_tokens - 1));
        }
    }
}

void check_scores(const step_hints & hints, int32_t n_tokens, const keep_schedule & schedule) {
    if (hints.scores == nullptr) {
        return;
    }
    if (!schedule.entry) {
        fail(status::invalid_argument, "scores are given, but the keep schedule has no pruning point before layer 0 "
                                       "(il -1) that would use them");
    }
    if (hints.n_scores != n_tokens) {
        fail(status::invalid_argument,
             format("%d scores, expected one for each of the %d tokens in the context", hints.n_scores, n_tokens));
    }
    for (int32_t i = 0; i < hints.n_scores; ++i) {
        if (std::isinf(hints.scores[i]) && hints.scores[i] < 0) {
            fail(status::invalid_argument, format("the score at position %d is -inf, expected a number, inf for a "
                                                  "token that is read, or NaN for one that stays as it is",
                                                  i));
        }
        if (schedule.entry->mass < 1.0 && hints.scores[i] < 0) {
            fail(status::invalid_argument,
                 format("the score at position %d is %g, expected none below 0 where the point before layer 0 has a "
                        "mass below 1",
                        i, hints.scores[i]));
        }
    }
}

} // namespace

void check_eval(const int32_t * tokens, int32_t n, const eval_params & params, const eval_limits & limits) {
    check_tokens(tokens, n, limits);
    check_attention(params.attention, params.hints.question, n, limits);
    check_protected(params.hints.protect, limits.n_past + n);
    check_scores(params.hints, limits.n_past + n, limits.schedule);
}

} // namespace lazygguf
