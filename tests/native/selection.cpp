// selection.cpp: counts, pooling, the best of a list, and the scores of askers.

#include <cmath>
#include <map>

#include "policy_setup.h"
#include "run/progress.h"

namespace lazygguf {
namespace {

std::vector<candidate> scored(const std::vector<float> & scores, const std::vector<int32_t> & protect = {}) {
    std::vector<candidate> out;
    for (size_t i = 0; i < scores.size(); ++i) {
        const auto pos = static_cast<int32_t>(i);
        out.push_back({pos, scores[i], contains(protect, pos)});
    }
    return out;
}

std::vector<float> scores_of(const std::vector<candidate> & candidates) {
    std::vector<float> out;
    for (const candidate & c : candidates) {
        out.push_back(c.score);
    }
    return out;
}

using floats = std::vector<float>;

CASE("keep_count is not short by one where keep * n is a whole number that binary misses") {
    CHECK_EQ(keep_count(0.29, 100), 29); // 28.999999999999996
    CHECK_EQ(keep_count(0.35, 260), 91);
    CHECK_EQ(keep_count(0.3, 99), 29);
    CHECK_EQ(keep_count(1.0, 77), 77);
    CHECK_EQ(keep_count(0.0, 77), 0);
}

CASE("with a mass of 1 as many are kept as keep allows") {
    CHECK_EQ(count_kept(scored({0.9F, 0.1F, 0.0F, 0.0F}), {0.75, 0.0, 1.0}, 4), 3);
}

CASE("the mass is that of the tokens that are not protected, which are counted") {
    CHECK_EQ(count_kept(scored({0.9F, 0.4F, 0.1F, 0.0F}, {0}), {1.0, 0.0, 0.8}, 4), 2);
    CHECK_EQ(count_kept(scored({0.9F, 0.4F, 0.1F, 0.0F}, {0}), {1.0, 0.0, 0.9}, 4), 3);
}

CASE("the count stays between keep_min and keep of the context") {
    const std::vector<candidate> tokens = scored({0.9F, 0.05F, 0.05F, 0.0F});
    CHECK_EQ(count_kept(tokens, {0.5, 0.0, 0.5}, 10), 1);
    CHECK_EQ(count_kept(tokens, {0.5, 0.3, 0.5}, 10), 3);
    CHECK_EQ(count_kept(tokens, {0.2, 0.0, 0.99}, 10), 2);
}

CASE("tokens that are all worth nothing are kept by keep_min alone") {
    CHECK_EQ(count_kept(scored({0.0F, 0.0F, 0.0F}), {1.0, 0.0, 0.5}, 3), 0);
    CHECK_EQ(count_kept(scored({0.0F, 0.0F, 0.0F}), {1.0, 0.67, 0.5}, 3), 2);
    CHECK_EQ(count_kept({}, {1.0, 0.5, 0.5}, 8), 4);
}

CASE("a score from outside that is not finite is protected and weighs nothing") {
    for (const float score : {INFINITY, std::nanf("")}) {
        const candidate c = outside_candidate(3, score, false);
        CHECK_EQ(c.is_protected, true);
        CHECK_EQ(c.score, 0.0F);
    }
    CHECK_EQ(outside_candidate(3, 0.5F, false).is_protected, false);
    CHECK_EQ(outside_candidate(3, 0.5F, true).is_protected, true);
    CHECK_EQ(outside_candidate(3, 0.5F, true).score, 0.5F);
}

CASE("a pooled score is the mean over the candidates within reach by position") {
    std::vector<candidate> tokens = scored({1.0F, 2.0F, 6.0F, 0.0F});
    tokens[3].pos = 9;
    pool_scores(tokens, 3);
    CHECK_EQ(scores_of(tokens), (floats{1.5F, 3.0F, 4.0F, 0.0F}));
    pool_scores(tokens, 1);
    CHECK_EQ(scores_of(tokens), (floats{1.5F, 3.0F, 4.0F, 0.0F}));
}

CASE("the best of a list ascend by position, and a limit below 0 is none") {
    const std::vector<candidate> tokens = scored({0.3F, 0.1F, 0.4F, 0.3F});
    CHECK_EQ(list_of(best(tokens, 2)), positions({0, 2}));
    CHECK_EQ(list_of(best(tokens, 0)), positions({}));
    CHECK_EQ(list_of(best(tokens, -1)), positions({0, 1, 2, 3}));
    CHECK_EQ(list_of(best(tokens, 9)), positions({0, 1, 2, 3}));
}

CASE("all protected tokens are selected where there are more than n_keep") {
    CHECK_EQ(list_of(select(scored({0.1F, 0.2F, 0.3F, 0.4F}, {0, 2, 3}), 2)), positions({0, 2, 3}));
    CHECK_EQ(list_of(select(scored({0.1F, 0.2F, 0.3F, 0.4F}, {0}), 2)), positions({0, 3}));
}

CASE("the worst score is that of the tokens that are not protected") {
    CHECK_EQ(worst_score(scored({0.1F, 0.5F, 0.3F}, {0})), 0.3F);
    CHECK_EQ(worst_score(scored({0.1F, 0.5F}, {0, 1})), 0.0F);
}

CASE("a score is the mean over the askers, or with query_max their maximum") {
    score_window mean(1, false);
    score_window most(1, true);
    for (score_window * window : {&mean, &most}) {
        window->add(1, {{0.25F, 0.75F}});
        window->add(2, {{0.5F, 0.25F, 0.25F}});
    }
    CHECK_EQ(mean.combine({1, 2}, 3), (floats{0.375F, 0.5F, 0.125F}));
    CHECK_EQ(most.combine({1, 2}, 3), (floats{0.5F, 0.75F, 0.25F}));
    CHECK_EQ(mean.combine({2}, 3), (floats{0.5F, 0.25F, 0.25F}));
}

// What a window that never combined before says of the same rows.
floats combined_anew(bool query_max, const std::map<int32_t, floats> & rows, const std::vector<int32_t> & asking,
                     int32_t n) {
    score_window window(1, query_max);
    for (const auto & [pos, row] : rows) {
        window.add(pos, {row});
    }
    return window.combine(asking, n);
}

CASE("scores are the same bits whether the question's part of them was there already or not") {
    for (const bool query_max : {false, true}) {
        score_window window(1, query_max);
        std::map<int32_t, floats> rows;
        uint32_t state = 1; // a linear congruential generator
        const auto add = [&](int32_t pos) {
            floats row;
            for (int32_t i = 0; i <= pos; ++i) {
                state = state * 1664525U + 1013904223U;
                row.push_back(static_cast<float>(state) / 4294967296.0F / 7.0F);
            }
            rows[pos] = row;
            window.add(pos, {row});
        };
        for (const int32_t pos : {2, 3, 4, 5}) {
            add(pos);
        }
        const auto same = [&](const std::vector<int32_t> & asking, int32_t n) {
            CHECK_EQ(window.combine(asking, n), combined_anew(query_max, rows, asking, n));
        };
        same({2, 3, 4, 5}, 6);
        for (int32_t pos = 6; pos < 12; ++pos) { // decoding: the question asks, and the newest token
            add(pos);
            same({2, 3, 4, pos}, pos + 1);
            window.keep_only({2, 3, 4, pos});
            rows = {{2, rows[2]}, {3, rows[3]}, {4, rows[4]}, {pos, rows[pos]}};
        }
        window.trim(11);
        add(11); // other attention than before
        same({2, 3, 4, 11}, 12);
        window.trim(4); // into the question
        add(4);
        add(5);
        same({2, 3, 4, 5}, 6);
        const score_window copy = window;
        add(3);
        same({2, 3, 4, 5}, 6);
        CHECK_EQ(copy.combine({2, 3, 4, 5}, 6) == window.combine({2, 3, 4, 5}, 6), false);
    }
}

CASE("of several heads the one that looked most counts") {
    score_window window(2, false);
    window.add(1, {{0.25F, 0.75F}, {0.5F, 0.5F}});
    CHECK_EQ(window.combine({1}, 2), (floats{0.5F, 0.75F}));
}

CASE("attention that is NaN comes through as a score that is NaN") {
    for (const bool query_max : {false, true}) {
        score_window window(2, query_max);
        window.add(1, {{0.5F, std::nanf("")}, {0.5F, 0.5F}});
        window.add(2, {{0.5F, 0.25F, 0.25F}, {0.5F, 0.25F, 0.25F}});
        const floats scores = window.combine({1, 2}, 3);
        CHECK_EQ(std::isnan(scores[1]), true);
        CHECK_EQ(scores[0], 0.5F);
    }
}

CASE("a window forgets the askers that are not kept, and those that are cut away") {
    score_window window(1, false);
    for (const int32_t pos : {1, 2, 3, 4}) {
        window.add(pos, {{1.0F}});
    }
    window.keep_only({2, 3, 4});
    window.trim(4);
    CHECK_EQ(window.has(1) || window.has(4), false);
    CHECK_EQ(window.has(2) && window.has(3), true);
}

CASE("progress counts rows times layers in tokens") {
    CHECK_EQ(tokens_done({{100, 50, 10}, {20, 0, 10}}, 100), 41); // 500 of 1200
    CHECK_EQ(tokens_done({{100, 100, 10}, {20, 10, 10}}, 100), 91);
    CHECK_EQ(tokens_done({{100, 100, 10}, {20, 20, 10}}, 100), 100);
    CHECK_EQ(tokens_done({{1, 1, 3}, {1, 0, 3}}, 1), 0);
}

} // namespace
} // namespace lazygguf
