// asking.cpp: who asks in a step, what is never pruned, and when a step runs dense.

#include "policy_setup.h"

namespace lazygguf {
namespace {

std::vector<int32_t> span(position_span s) { return {s.begin, s.end}; }

score_window remembering(const std::vector<int32_t> & askers) {
    score_window window(1, false);
    for (const int32_t pos : askers) {
        window.add(pos, {{1.0F}});
    }
    return window;
}

// ---- at a point

CASE("the newest token asks where n_query is 1") {
    CHECK_EQ(find_query(point_at(1, 0.5), {0, 10}, {}, remembering({})), positions({9}));
}

CASE("the newest n_query tokens ask, and all of a shorter prompt") {
    CHECK_EQ(find_query(point_at(1, 0.5, 3), {0, 10}, {}, remembering({})), positions({7, 8, 9}));
    CHECK_EQ(find_query(point_at(1, 0.5, 3), {0, 2}, {}, remembering({})), positions({0, 1}));
}

CASE("nobody asks where all go on") {
    CHECK_EQ(find_query(point_at(1, 1.0), {0, 10}, {2, 4}, remembering({})), positions({}));
}

CASE("somebody asks where all may go on but a mass below 1 may be enough") {
    pruning_point point = point_at(1, 1.0);
    point.mass = 0.9;
    CHECK_EQ(find_query(point, {0, 10}, {}, remembering({})), positions({9}));
}

CASE("the question asks, and the newest token beside it") {
    CHECK_EQ(find_query(point_at(1, 0.5, 0), {0, 10}, {3, 5}, remembering({})), positions({3, 4, 9}));
}

CASE("the newest token asks once where the question ends with it") {
    CHECK_EQ(find_query(point_at(1, 0.5, 0), {0, 10}, {8, 10}, remembering({})), positions({8, 9}));
}

CASE("the newest token asks alone where the question is empty") {
    CHECK_EQ(find_query(point_at(1, 0.5, 0), {0, 10}, {4, 4}, remembering({})), positions({9}));
}

CASE("an old token asks where it asked before and nothing is computed again for it") {
    CHECK_EQ(find_query(point_at(1, 0.5, 4), {8, 10}, {}, remembering({7})), positions({7, 8, 9}));
    CHECK_EQ(find_query(point_at(1, 0.5, 0), {9, 10}, {5, 7}, remembering({5, 6})), positions({5, 6, 9}));
}

// ---- the question

CASE("a span that is partly old asks as far as it is remembered") {
    const position_span question = find_question({8, 12}, {6, 12}, {});
    CHECK_EQ(span(question), span({6, 12}));
    CHECK_EQ(find_query(point_at(1, 0.5, 0), {8, 12}, question, remembering({7})), positions({7, 8, 9, 10, 11}));
}

CASE("a span without a new token is not the question") {
    CHECK_EQ(span(find_question({8, 12}, {2, 8}, {})), span({8, 12}));
    CHECK_EQ(span(find_question({8, 12}, {2, 9}, {})), span({2, 9}));
}

CASE("a span of no tokens, or one that begins below 0, is not the question") {
    CHECK_EQ(span(find_question({0, 12}, {5, 5}, {})), span({0, 12}));
    CHECK_EQ(span(find_question({0, 12}, {7, 5}, {})), span({0, 12}));
    CHECK_EQ(span(find_question({0, 12}, {-1, 5}, {})), span({0, 12}));
}

CASE("a span is cut to the context") { CHECK_EQ(span(find_question({0, 12}, {5, 90}, {})), span({5, 12})); }

CASE("the last 128 tokens of a longer span ask") {
    CHECK_EQ(span(find_question({0, 1000}, {100, 900}, {})), span({772, 900}));
    CHECK_EQ(span(find_question({0, 1000}, {772, 900}, {})), span({772, 900}));
}

CASE("without a span the last 24 new tokens ask, or all of fewer") {
    CHECK_EQ(span(find_question({0, 100}, {-1, -1}, {})), span({76, 100}));
    CHECK_EQ(span(find_question({90, 100}, {-1, -1}, {})), span({90, 100}));
}

CASE("a decode step goes on with the question of the step before") {
    CHECK_EQ(span(find_question({50, 51}, {-1, -1}, {20, 30})), span({20, 30}));
    CHECK_EQ(span(find_question({50, 51}, {-1, -1}, {40, 50})), span({40, 50}));
}

CASE("a decode step with a new question takes that") {
    CHECK_EQ(span(find_question({50, 51}, {50, 51}, {20, 30})), span({50, 51}));
}

CASE("a decode step does not go on with a question that was cut away") {
    CHECK_EQ(span(find_question({50, 51}, {-1, -1}, {40, 51})), span({50, 51}));
    CHECK_EQ(span(find_question({50, 51}, {-1, -1}, {})), span({50, 51}));
}

CASE("a later prompt does not ask with the question of the one before") {
    CHECK_EQ(span(find_question({50, 60}, {-1, -1}, {20, 30})), span({50, 60}));
}

// ---- dense

CASE("a context below min_prompt runs dense and one of min_prompt does not") {
    keep_schedule schedule = schedule_of({point_at(1, 0.5)});
    schedule.min_prompt = 10;
    CHECK_EQ(runs_dense(schedule, {0, 9}, {}), true);
    CHECK_EQ(runs_dense(schedule, {0, 10}, {}), false);
    CHECK_EQ(runs_dense(schedule, {8, 9}, {}), true);
    CHECK_EQ(runs_dense(schedule, {9, 10}, {}), false);
}

CASE("with dense_unasked a prompt without a question runs dense where a point would ask it") {
    keep_schedule schedule = schedule_of({point_at(1, 0.5), point_at(3, 0.2, 0)});
    CHECK_EQ(runs_dense(schedule, {0, 10}, {-1, -1}), false);
    schedule.dense_unasked = true;
    CHECK_EQ(runs_dense(schedule, {0, 10}, {-1, -1}), true);
    CHECK_EQ(runs_dense(schedule, {0, 10}, {4, 6}), false);
    CHECK_EQ(runs_dense(schedule, {6, 10}, {4, 6}), true);    // all of the span is old
    CHECK_EQ(runs_dense(schedule, {9, 10}, {-1, -1}), false); // a decode step
}

CASE("with dense_unasked a prompt is pruned where no point would ask the question") {
    keep_schedule schedule = schedule_of({point_at(1, 0.5, 8)});
    schedule.dense_unasked = true;
    CHECK_EQ(runs_dense(schedule, {0, 10}, {-1, -1}), false);
}

// ---- the plan

CASE("sinks, askers of every point, the newest token and the caller's positions are protected") {
    keep_schedule schedule = schedule_of({point_at(1, 0.5, 2), point_at(3, 0.2, 0)});
    schedule.n_sink = 2;
    step_hints hints = hints_of({10, 12});
    hints.protect = {5};
    const step_plan plan = plan_of(schedule, {0, 20}, hints);
    std::vector<int32_t> found;
    for (int32_t pos = 0; pos < 20; ++pos) {
        if (plan.is_protected(pos)) {
            found.push_back(pos);
        }
    }
    CHECK_EQ(found, positions({0, 1, 5, 10, 11, 18, 19}));
    CHECK_EQ(plan.query, (std::vector<std::vector<int32_t>>{{18, 19}, {10, 11, 19}}));
}

CASE("the newest token is protected where nobody asks") {
    CHECK_EQ(plan_of(schedule_of({point_at(1, 1.0)}), {0, 20}).is_protected(19), true);
    CHECK_EQ(plan_of(schedule_of({point_at(1, 1.0)}), {0, 20}).is_protected(18), false);
}

CASE("the question is protected before layer 0 whoever asks later") {
    keep_schedule schedule = schedule_of({point_at(1, 0.5)});
    CHECK_EQ(plan_of(schedule, {0, 20}, hints_of({10, 12})).is_protected(10), false);
    schedule.entry = point_at(-1, 0.5);
    CHECK_EQ(plan_of(schedule, {0, 20}, hints_of({10, 12})).is_protected(10), true);
    CHECK_EQ(plan_of(schedule, {0, 20}, hints_of({10, 12})).is_protected(12), false);
}

CASE("what the caller protected in an earlier step stays protected") {
    step_memory before;
    before.protect = {2, 7};
    step_hints hints;
    hints.protect = {5, 7};
    const step_plan plan = plan_of(schedule_of({point_at(1, 0.5)}), {10, 20}, hints, before);
    CHECK_EQ(plan.protect, positions({2, 5, 7}));
    CHECK_EQ(plan.is_protected(2) && plan.is_protected(5), true);
}

CASE("prompts and steps that run dense revive without limit") {
    keep_schedule schedule = schedule_of({point_at(1, 0.5)});
    schedule.max_revive = 3;
    CHECK_EQ(plan_of(schedule, {10, 20}).n_revive, -1);
    CHECK_EQ(plan_of(schedule, {0, 1}).n_revive, -1);
    CHECK_EQ(plan_of(schedule, {10, 11}).n_revive, 3);
    schedule.min_prompt = 50;
    CHECK_EQ(plan_of(schedule, {10, 11}).n_revive, -1);
}

CASE("with mean_revive a decode step revives the whole tokens that were saved") {
    keep_schedule schedule = schedule_of({point_at(1, 0.5)});
    schedule.max_revive = 5;
    schedule.mean_revive = 0.7;
    step_memory before;
    before.n_saved = 2.9;
    CHECK_EQ(plan_of(schedule, {10, 11}, {}, before).n_revive, 2);
    schedule.mean_revive = 0.0;
    CHECK_EQ(plan_of(schedule, {10, 11}, {}, before).n_revive, 5);
    schedule.max_revive = -1;
    CHECK_EQ(plan_of(schedule, {10, 11}, {}, before).n_revive, -1);
}

} // namespace
} // namespace lazygguf
