// late.cpp: a plain decode step, for which the step before has chosen.

#include "policy_setup.h"

namespace lazygguf {
namespace {

constexpr step_extent PROMPT = {0, 8};
constexpr step_extent DECODE = {8, 9};

const keep_schedule ONE_POINT = schedule_of({point_at(1, 0.5)});
const std::vector<float> RISING = {0.1F, 0.2F, 0.3F, 0.4F, 0.5F, 0.6F, 0.7F, 0.8F, 0.0F};

step_memory after(int32_t n_tokens) {
    step_memory memory;
    memory.next.n_past = n_tokens;
    return memory;
}

keep_schedule limited(int max_revive, size_t n_points = 1) {
    keep_schedule schedule = schedule_of(std::vector<pruning_point>(n_points, point_at(1, 0.75)));
    schedule.max_revive = max_revive;
    return schedule;
}

// What the first point chooses for the next step, of nine tokens that all live; `held` have rows after it.
choice next_of(const keep_schedule & schedule, const std::vector<int32_t> & held) {
    const cell_map next = cells_of(held);
    return choose_next(schedule, plan_of(schedule, DECODE), {0, RISING, next}, {positions_of({0, 9}), {}, {}});
}

// ---- which steps

CASE("a decode step goes by what the step before it chose") {
    CHECK_EQ(is_late(ONE_POINT, DECODE, {}, after(8)), true);
}

CASE("a prompt chooses as it goes") {
    CHECK_EQ(is_late(ONE_POINT, {8, 10}, {}, after(8)), false);
    CHECK_EQ(is_late(ONE_POINT, {0, 1}, {}, after(0)), false);
}

CASE("a decode step chooses as it goes where the step before did not end there") {
    CHECK_EQ(is_late(ONE_POINT, DECODE, {}, after(9)), false);
    CHECK_EQ(is_late(ONE_POINT, DECODE, {}, {}), false);
}

CASE("a decode step chooses as it goes where the caller says more than its token") {
    CHECK_EQ(is_late(ONE_POINT, DECODE, hints_of({8, 9}), after(8)), false);
    CHECK_EQ(is_late(ONE_POINT, DECODE, hints_of({2, 4}), after(8)), false);
    step_hints hints;
    hints.protect = {3};
    CHECK_EQ(is_late(ONE_POINT, DECODE, hints, after(8)), false);
    hints.protect = {};
    hints.scores = RISING.data();
    CHECK_EQ(is_late(ONE_POINT, DECODE, hints, after(8)), false);
}

CASE("nothing is chosen where the model is one segment") {
    CHECK_EQ(is_late(entry_schedule(0.5), DECODE, {}, after(8)), false);
}

CASE("a context that was cut has no choice for the next step") {
    CHECK_EQ(trimmed(ONE_POINT, after(8), 7).next.n_past, -1);
}

// ---- what lives

CASE("what was chosen lives in a late step, and the newest token") {
    const step_plan plan = plan_of(ONE_POINT, DECODE);
    const choice now = choose_late(ONE_POINT, plan, {{1, 4, 6}, {4}, {4}}, cells_of({0, 1, 2, 6}));
    CHECK_EQ(now.live, positions({1, 4, 6, 8}));
    CHECK_EQ(now.rows, positions({4, 8}));
    CHECK_EQ(now.revived, positions({4}));
}

CASE("with decode_cached a late step attends to all that is held") {
    keep_schedule schedule = ONE_POINT;
    schedule.decode_cached = true;
    const choice now = choose_late(schedule, plan_of(schedule, DECODE), {{1, 4, 6}, {4}, {4}}, cells_of({0, 1, 6}));
    CHECK_EQ(now.live, positions({0, 1, 4, 6, 8}));
    CHECK_EQ(now.rows, positions({4, 8}));
}

CASE("after a step that chose as it went the same lives on and nothing comes back") {
    const next_step next = same_again(PROMPT, {{positions_of({0, 8}), {}, {}}, {{2, 5, 7}, {5, 7}, {5}}});
    CHECK_EQ(next.n_past, 8);
    CHECK_EQ(next.segments[1].live, positions({2, 5, 7}));
    CHECK_EQ(next.segments[1].rows, positions({}));
    CHECK_EQ(next.segments[1].revived, positions({}));
}

// ---- what is chosen for the next step

CASE("what is selected lives in the next step and comes back where the segment has no row of it") {
    const choice next = next_of(limited(-1), {0, 3, 6, 8}); // 6 of 9 tokens
    CHECK_EQ(next.live, positions({3, 4, 5, 6, 7, 8}));
    CHECK_EQ(next.rows, positions({4, 5, 7}));
    CHECK_EQ(next.revived, positions({4, 5, 7}));
}

CASE("what the budget leaves out does not live in the next step") {
    const choice next = next_of(limited(1), {0, 3, 6, 8});
    CHECK_EQ(next.live, positions({3, 6, 7, 8}));
    CHECK_EQ(next.rows, positions({7}));
}

CASE("what comes back at an earlier point goes on in any case, and counts") {
    const keep_schedule schedule = limited(3, 2);
    const cell_map held = cells_of({3, 5, 8});
    const choice now = {{0, 3, 5, 6, 7, 8}, {}, {1, 2}};
    const choice next = choose_next(schedule, plan_of(schedule, DECODE), {1, RISING, held}, now);
    CHECK_EQ(next.live, positions({1, 2, 3, 5, 7, 8})); // 6 is over the budget
    CHECK_EQ(next.rows, positions({1, 2, 7}));
    CHECK_EQ(next.revived, positions({1, 2, 7}));
}

CASE("the points of a step share what the next one may bring back") {
    const keep_schedule schedule = limited(3, 2);
    const step_plan plan = plan_of(schedule, DECODE);
    const cell_map held = cells_of({8});
    const choice first = choose_next(schedule, plan, {0, RISING, held}, {positions_of({0, 9}), {}, {}});
    CHECK_EQ(first.rows, positions({7})); // 3 / 2
    const choice second = choose_next(schedule, plan, {1, RISING, held}, {{3, 4, 5, 6, 8}, {}, first.revived});
    CHECK_EQ(second.rows, positions({5, 6, 7})); // and the 2 that are left
}

CASE("the next step's budget is what will have been saved by then") {
    keep_schedule schedule = limited(4);
    schedule.mean_revive = 0.75;
    CHECK_EQ(plan_next(schedule, plan_of(schedule, DECODE), 2.5).n_revive, 2);
    schedule.mean_revive = 0.0;
    CHECK_EQ(plan_next(schedule, plan_of(schedule, DECODE), 2.5).n_revive, 4);
    schedule.min_prompt = 100;
    CHECK_EQ(plan_next(schedule, plan_of(schedule, DECODE), 2.5).n_revive, -1);
}

} // namespace
} // namespace lazygguf
