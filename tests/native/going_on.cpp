// going_on.cpp: what lives on after a pruning point, what is revived, and what the next step may revive.

#include "policy_setup.h"

namespace lazygguf {
namespace {

constexpr step_extent PROMPT = {0, 8};
constexpr step_extent LATER_PROMPT = {6, 8};
constexpr step_extent DECODE = {7, 8};

choice living(const std::vector<int32_t> & live, const std::vector<int32_t> & revived = {}) {
    choice now;
    now.live = live;
    now.revived = revived;
    return now;
}

std::vector<int32_t> all(int32_t n) { return positions_of({0, n}); }

// Eight tokens, all of them live; the first point of `schedule` ends the segment, `held` have rows after it.
choice going_on(const keep_schedule & schedule, const step_extent & extent, const std::vector<float> & scores,
                const std::vector<int32_t> & held) {
    const cell_map next = cells_of(held);
    return choose_going_on(schedule, plan_of(schedule, extent), {0, scores, next}, living(all(8)));
}

keep_schedule limited(int max_revive, double keep = 0.75) {
    keep_schedule schedule = schedule_of({point_at(1, keep)});
    schedule.max_revive = max_revive;
    return schedule;
}

const std::vector<float> RISING = {0.1F, 0.2F, 0.3F, 0.4F, 0.5F, 0.6F, 0.7F, 0.0F};

// ---- does a point prune

CASE("a point prunes where more are live than keep allows of the context") {
    const keep_schedule schedule = schedule_of({point_at(1, 0.5)});
    const step_plan plan = plan_of(schedule, PROMPT);
    CHECK_EQ(may_prune(schedule.points[0], plan, 4), false);
    CHECK_EQ(may_prune(schedule.points[0], plan, 5), true);
}

CASE("a point with a mass may prune where more are live than keep_min allows") {
    keep_schedule schedule = schedule_of({point_at(1, 1.0)});
    CHECK_EQ(may_prune(schedule.points[0], plan_of(schedule, PROMPT), 8), false);
    schedule.points[0].mass = 0.9;
    schedule.points[0].keep_min = 0.25;
    const step_plan plan = plan_of(schedule, PROMPT);
    CHECK_EQ(may_prune(schedule.points[0], plan, 2), false);
    CHECK_EQ(may_prune(schedule.points[0], plan, 3), true);
}

CASE("no point prunes in a step that runs dense") {
    keep_schedule schedule = schedule_of({point_at(1, 0.1)});
    schedule.min_prompt = 100;
    CHECK_EQ(may_prune(schedule.points[0], plan_of(schedule, PROMPT), 8), false);
}

// ---- what is selected

CASE("the best of the live tokens are selected, as many as keep allows of the context") {
    const keep_schedule schedule = schedule_of({point_at(1, 0.5)});
    const step_plan plan = plan_of(schedule, PROMPT);
    CHECK_EQ(list_of(select_live(schedule.points[0], plan, all(8), RISING)), positions({4, 5, 6, 7}));
    CHECK_EQ(list_of(select_live(schedule.points[0], plan, {0, 1, 2, 5, 7}, RISING)), positions({1, 2, 5, 7}));
}

CASE("at equal scores the earlier token is selected") {
    const keep_schedule schedule = schedule_of({point_at(1, 0.5)});
    const std::vector<float> level(8, 0.125F);
    CHECK_EQ(list_of(select_live(schedule.points[0], plan_of(schedule, PROMPT), all(8), level)),
             positions({0, 1, 2, 7}));
}

CASE("sinks, the question and what the caller protects are selected whatever their scores") {
    keep_schedule schedule = schedule_of({point_at(1, 0.25, 0)});
    schedule.n_sink = 1;
    step_hints hints = hints_of({3, 5});
    hints.protect = {2};
    const std::vector<float> scores = {0.0F, 0.9F, 0.0F, 0.0F, 0.0F, 0.8F, 0.7F, 0.0F};
    const step_plan plan = plan_of(schedule, PROMPT, hints);
    CHECK_EQ(list_of(select_live(schedule.points[0], plan, all(8), scores)), positions({0, 2, 3, 4, 7}));
}

CASE("protected tokens take the places of others") {
    keep_schedule schedule = schedule_of({point_at(1, 0.5)});
    schedule.n_sink = 2;
    CHECK_EQ(list_of(select_live(schedule.points[0], plan_of(schedule, PROMPT), all(8), RISING)),
             positions({0, 1, 6, 7}));
}

CASE("all are selected and none is weighed where a point does not prune") {
    const keep_schedule schedule = schedule_of({point_at(1, 0.5)});
    const std::vector<candidate> selected = select_live(schedule.points[0], plan_of(schedule, PROMPT), {2, 5, 7}, {});
    CHECK_EQ(list_of(selected), positions({2, 5, 7}));
    for (const candidate & c : selected) {
        CHECK_EQ(c.is_protected, true);
        CHECK_EQ(c.score, 0.0F);
    }
}

CASE("scores at a point are pooled over the neighbours that are live") {
    keep_schedule schedule = schedule_of({point_at(1, 0.25)});
    const std::vector<float> scores = {0.0F, 0.5F, 0.4F, 0.0F, 0.0F, 0.6F, 0.0F, 0.0F};
    schedule.points[0].pool = 3;
    const step_plan plan = plan_of(schedule, PROMPT);
    CHECK_EQ(list_of(select_live(schedule.points[0], plan, all(8), scores)), positions({1, 7}));
    CHECK_EQ(list_of(select_live(schedule.points[0], plan, {0, 1, 5, 7}, scores)), positions({5, 7})); // alone: 0.6
}

CASE("the fewest tokens that hold the mass are selected, between keep_min and keep") {
    keep_schedule schedule = schedule_of({point_at(1, 0.75)});
    const std::vector<float> scores = {0.3F, 0.4F, 0.1F, 0.1F, 0.05F, 0.05F, 0.0F, 0.9F};
    const auto selected = [&](double mass, double keep_min) {
        schedule.points[0].mass = mass;
        schedule.points[0].keep_min = keep_min;
        return list_of(select_live(schedule.points[0], plan_of(schedule, PROMPT), all(8), scores));
    };
    CHECK_EQ(selected(0.65, 0.0), positions({0, 1, 7})); // the newest token holds none of the mass
    CHECK_EQ(selected(0.65, 0.5), positions({0, 1, 2, 7}));
    CHECK_EQ(selected(1.0, 0.0), positions({0, 1, 2, 3, 4, 7}));
    CHECK_EQ(selected(0.99, 0.0), positions({0, 1, 2, 3, 4, 7}));
}

// ---- what lives and is computed

CASE("what is selected lives on and is computed where the next segment has no row of it") {
    const choice next = going_on(schedule_of({point_at(1, 0.5)}), LATER_PROMPT, RISING, {0, 1, 5});
    CHECK_EQ(next.live, positions({4, 5, 6, 7}));
    CHECK_EQ(next.rows, positions({4, 6, 7}));
    CHECK_EQ(next.revived, positions({4}));
}

CASE("what the next segment holds is computed once, whatever was revived") {
    const keep_schedule schedule = limited(-1);
    const cell_map next = cells_of({4});
    CHECK_EQ(choose_going_on(schedule, plan_of(schedule, DECODE), {0, RISING, next}, living(all(8), {4})).rows,
             positions({2, 3, 5, 6, 7}));
}

CASE("what the next segment holds and is not selected is not seen") {
    CHECK_EQ(going_on(limited(0), DECODE, RISING, {0, 1, 3}).live, positions({3, 7}));
    CHECK_EQ(going_on(limited(0), LATER_PROMPT, RISING, {0, 1, 3}).live, positions({2, 3, 4, 5, 6, 7}));
}

CASE("a later prompt revives all that is selected whatever the limit") {
    keep_schedule schedule = limited(0);
    schedule.revive_margin = 9.0;
    CHECK_EQ(going_on(schedule, LATER_PROMPT, RISING, {}).revived, positions({2, 3, 4, 5}));
}

CASE("a decode step that runs dense revives all whatever the limit") {
    keep_schedule schedule = limited(0);
    schedule.min_prompt = 100;
    CHECK_EQ(going_on(schedule, DECODE, {}, {}).live, all(8));
    CHECK_EQ(going_on(schedule, DECODE, {}, {}).revived, all(7));
}

CASE("without a limit a decode step revives all that is selected") {
    CHECK_EQ(going_on(limited(-1), DECODE, RISING, {3}).revived, positions({2, 4, 5, 6}));
}

CASE("a decode step revives at most its budget, the best first") {
    const choice next = going_on(limited(2), DECODE, RISING, {3});
    CHECK_EQ(next.revived, positions({5, 6}));
    CHECK_EQ(next.rows, positions({5, 6, 7}));
}

CASE("with a budget of 0 a decode step revives nothing and computes the new token") {
    const choice next = going_on(limited(0), DECODE, RISING, {3, 6});
    CHECK_EQ(next.live, positions({3, 6, 7}));
    CHECK_EQ(next.rows, positions({7}));
}

CASE("what the budget leaves out is not seen in the step") {
    CHECK_EQ(going_on(limited(1), DECODE, RISING, {3}).live, positions({3, 6, 7}));
}

CASE("at equal scores a decode step revives the earlier token") {
    const std::vector<float> level(8, 0.125F);
    CHECK_EQ(going_on(limited(2), DECODE, level, {0}).revived, positions({1, 2}));
}

CASE("the budget is spread evenly over the points that are left") {
    keep_schedule schedule = schedule_of({point_at(1, 0.75), point_at(3, 0.75), point_at(5, 0.75)});
    schedule.max_revive = 5;
    const step_plan plan = plan_of(schedule, DECODE);
    const cell_map none;
    choice now = living(all(8));
    now = choose_going_on(schedule, plan, {0, RISING, none}, now);
    CHECK_EQ(now.revived, positions({6})); // 5 / 3
    now.live = all(8);                     // as if the first point had left the others there
    now = choose_going_on(schedule, plan, {1, RISING, none}, now);
    CHECK_EQ(now.revived, positions({4, 5, 6})); // and (5 - 1) / 2
    now.live = all(8);
    now = choose_going_on(schedule, plan, {2, RISING, none}, now);
    CHECK_EQ(now.revived, positions({2, 3, 4, 5, 6})); // and the 2 that are left
}

CASE("what entered by its score counts against the budget, which does not go below 0") {
    const keep_schedule schedule = limited(2);
    const cell_map none;
    const step_plan plan = plan_of(schedule, DECODE);
    CHECK_EQ(choose_going_on(schedule, plan, {0, RISING, none}, living(all(8), {1})).revived, positions({1, 6}));
    CHECK_EQ(choose_going_on(schedule, plan, {0, RISING, none}, living(all(8), {0, 1, 2})).revived,
             positions({0, 1, 2}));
}

CASE("what was revived at an earlier point goes on beside the budget of this one") {
    const keep_schedule schedule = limited(1);
    const cell_map none;
    const choice next = choose_going_on(schedule, plan_of(schedule, DECODE), {0, RISING, none}, living(all(8), {4}));
    CHECK_EQ(next.live, positions({4, 7}));
    CHECK_EQ(next.rows, positions({4, 7}));
}

CASE("what was revived is pruned again where it is not selected") {
    const keep_schedule schedule = limited(4, 0.5);
    const cell_map none;
    const choice next = choose_going_on(schedule, plan_of(schedule, DECODE), {0, RISING, none}, living(all(8), {0}));
    CHECK_EQ(next.live, positions({4, 5, 6, 7}));
    CHECK_EQ(next.revived, positions({0, 4, 5, 6}));
}

CASE("with a margin a decode step revives only what is clearly above the worst that was selected") {
    keep_schedule schedule = limited(-1);
    schedule.revive_margin = 1.0; // twice the worst: 0.6 of 0.3
    CHECK_EQ(going_on(schedule, DECODE, RISING, {2}).revived, positions({5, 6}));
    schedule.revive_margin = 0.0;
    CHECK_EQ(going_on(schedule, DECODE, RISING, {2}).revived, positions({3, 4, 5, 6}));
}

CASE("with decode_cached a decode step attends to all that the next segment holds") {
    keep_schedule schedule = limited(1);
    schedule.decode_cached = true;
    const choice next = going_on(schedule, DECODE, RISING, {0, 3});
    CHECK_EQ(next.live, positions({0, 3, 6, 7}));
    CHECK_EQ(next.rows, positions({6, 7}));
}

CASE("with decode_cached a prompt attends to what was selected") {
    keep_schedule schedule = limited(1);
    schedule.decode_cached = true;
    CHECK_EQ(going_on(schedule, LATER_PROMPT, RISING, {0, 3}).live, positions({2, 3, 4, 5, 6, 7}));
}

// ---- what the next step may revive

CASE("after a prompt max_revive tokens are saved for the next decode step") {
    CHECK_EQ(saved_after(limited(4), PROMPT, 0.0, 3), 4.0);
    CHECK_EQ(saved_after(limited(4), LATER_PROMPT, 1.0, 3), 4.0);
    CHECK_EQ(saved_after(limited(-1), PROMPT, 0.0, 3), 0.0);
}

CASE("a decode step saves what it left over and mean_revive more, up to max_revive") {
    keep_schedule schedule = limited(4);
    schedule.mean_revive = 0.75;
    CHECK_EQ(saved_after(schedule, DECODE, 4.0, 2), 2.75);
    CHECK_EQ(saved_after(schedule, DECODE, 4.0, 0), 4.0);
    CHECK_EQ(saved_after(schedule, DECODE, 2.0, 3), 0.75); // more were read by their scores
}

CASE("a context that was cut forgets later positions and revives as after a prompt") {
    step_memory memory;
    memory.entered = {1, 4, 6};
    memory.protect = {2, 5};
    memory.question = {3, 5};
    memory.n_saved = 0.5;
    const step_memory cut = trimmed(limited(3), memory, 5);
    CHECK_EQ(cut.entered, positions({1, 4}));
    CHECK_EQ(cut.protect, positions({2}));
    CHECK_EQ(cut.n_saved, 3.0);
    CHECK_EQ(list_of(cut.question), positions({3, 4}));
}

} // namespace
} // namespace lazygguf
