// entering.cpp: what lives before layer 0.

#include <cmath>

#include "policy_setup.h"

namespace lazygguf {
namespace {

const float NO_SCORE = std::nanf("");
const float ALWAYS = INFINITY;

// A prompt of which only the newest token is protected by itself.
choice entering(keep_schedule schedule, const std::vector<float> & scores) {
    const step_extent extent = {0, static_cast<int32_t>(scores.size())};
    const step_plan plan = plan_of(schedule, extent, hints_of({extent.n_tokens - 1, extent.n_tokens}));
    return choose_entering(schedule, plan, scores.data(), {}, {});
}

CASE("without a point before layer 0 every token enters") {
    const keep_schedule schedule = schedule_of({point_at(1, 0.5)});
    const choice entered = choose_entering(schedule, plan_of(schedule, {3, 5}), nullptr, {1}, cells_of({0, 1, 2}));
    CHECK_EQ(entered.live, positions({0, 1, 2, 3, 4}));
    CHECK_EQ(entered.rows, positions({3, 4}));
    CHECK_EQ(entered.revived, positions({}));
}

CASE("without scores the new tokens enter beside those that entered before") {
    const keep_schedule schedule = entry_schedule(0.5);
    const choice entered = choose_entering(schedule, plan_of(schedule, {4, 6}), nullptr, {0, 3}, cells_of({0, 3}));
    CHECK_EQ(entered.live, positions({0, 3, 4, 5}));
    CHECK_EQ(entered.rows, positions({4, 5}));
}

CASE("in a step that runs dense every token enters whatever its score") {
    keep_schedule schedule = entry_schedule(0.5);
    schedule.min_prompt = 100;
    CHECK_EQ(entering(schedule, {0.1F, 0.2F, 0.3F, 0.4F}).live, positions({0, 1, 2, 3}));
}

CASE("the tokens with the best scores enter, as many as keep allows with the protected ones") {
    CHECK_EQ(entering(entry_schedule(0.5), {0.1F, 0.9F, 0.2F, 0.8F, 0.7F, 0.0F}).live, positions({1, 3, 5}));
}

CASE("at equal scores the earlier token enters") {
    CHECK_EQ(entering(entry_schedule(0.5), {0.1F, 0.4F, 0.4F, 0.4F, 0.1F, 0.0F}).live, positions({1, 2, 5}));
}

CASE("sinks and what the caller protects enter whatever their scores") {
    keep_schedule schedule = entry_schedule(0.5);
    schedule.n_sink = 1;
    step_hints hints = hints_of({5, 6});
    hints.protect = {2};
    const std::vector<float> scores = {0.0F, 0.9F, 0.0F, 0.8F, 0.7F, 0.0F};
    const step_plan plan = plan_of(schedule, {0, 6}, hints);
    CHECK_EQ(choose_entering(schedule, plan, scores.data(), {}, {}).live, positions({0, 2, 5}));
}

CASE("a score of inf enters in any case, beyond keep too") {
    CHECK_EQ(entering(entry_schedule(0.5), {ALWAYS, 0.9F, ALWAYS, 0.8F, ALWAYS, 0.0F}).live, positions({0, 2, 4, 5}));
}

CASE("a score of inf takes one of the places that keep allows") {
    CHECK_EQ(entering(entry_schedule(0.5), {ALWAYS, 0.9F, 0.7F, 0.8F, 0.1F, 0.0F}).live, positions({0, 1, 5}));
}

CASE("NaN leaves a token as it is: a new one enters, an old one where it did") {
    const keep_schedule schedule = entry_schedule(0.5);
    const std::vector<float> scores = {NO_SCORE, NO_SCORE, 0.1F, 0.9F, NO_SCORE, 0.2F, 0.3F, 0.0F};
    const step_plan plan = plan_of(schedule, {4, 8}, hints_of({7, 8}));
    const choice entered = choose_entering(schedule, plan, scores.data(), {1, 2}, cells_of({1, 2}));
    CHECK_EQ(entered.live, positions({1, 3, 4, 7}));
}

CASE("NaN counts among the tokens of the context") {
    const keep_schedule schedule = entry_schedule(0.5);
    const std::vector<float> scores = {NO_SCORE, NO_SCORE, NO_SCORE, 0.5F, 0.4F, 0.3F, 0.2F, 0.0F};
    const step_plan plan = plan_of(schedule, {4, 8}, hints_of({7, 8}));
    CHECK_EQ(choose_entering(schedule, plan, scores.data(), {}, {}).live, positions({3, 4, 5, 7}));
}

CASE("an old token that enters is read now and counts as revived") {
    const keep_schedule schedule = entry_schedule(0.5);
    const std::vector<float> scores = {0.9F, 0.1F, 0.8F, 0.1F, 0.1F, 0.0F};
    const step_plan plan = plan_of(schedule, {5, 6}, hints_of({5, 6}));
    const choice entered = choose_entering(schedule, plan, scores.data(), {2}, cells_of({2, 3}));
    CHECK_EQ(entered.live, positions({0, 2, 5}));
    CHECK_EQ(entered.rows, positions({0, 5}));
    CHECK_EQ(entered.revived, positions({0}));
}

CASE("scores are pooled over neighbours by position before they are compared") {
    keep_schedule schedule = entry_schedule(0.34);
    const std::vector<float> scores = {0.0F, 0.5F, 0.5F, 0.5F, 0.0F, 0.0F, 0.9F, 0.0F, 0.0F};
    CHECK_EQ(entering(schedule, scores).live, positions({1, 6, 8}));
    schedule.entry->pool = 3;
    CHECK_EQ(entering(schedule, scores).live, positions({1, 2, 8})); // 0.33, 0.5, 0.33, and 0.3 around the 0.9
}

CASE("the fewest tokens that hold the mass enter, between keep_min and keep") {
    keep_schedule schedule = entry_schedule(0.5);
    const std::vector<float> scores = {0.3F, 0.4F, 0.1F, 0.1F, 0.05F, 0.05F, 0.0F, 0.0F, 0.0F, 0.0F};
    schedule.entry->mass = 0.65;
    CHECK_EQ(entering(schedule, scores).live, positions({0, 1, 9}));
    schedule.entry->keep_min = 0.4;
    CHECK_EQ(entering(schedule, scores).live, positions({0, 1, 2, 9}));
    schedule.entry->keep_min = 0.0;
    schedule.entry->mass = 0.99;
    CHECK_EQ(entering(schedule, scores).live, positions({0, 1, 2, 3, 9}));
}

} // namespace
} // namespace lazygguf
