// policy_setup.h: schedules, plans and cells for the cases about a step.
#pragma once

#include <vector>

#include "check.h"
#include "prune/policy.h"

namespace lazygguf {

// The paper's point: the newest token asks, no pooling, as many as keep allows.
inline pruning_point point_at(int il, double keep, int n_query = 1) {
    return {il, keep, {{il, {}}}, n_query, 1, 1.0, 0.0, false};
}

inline keep_schedule schedule_of(std::vector<pruning_point> points) {
    keep_schedule schedule;
    schedule.points = std::move(points);
    return schedule;
}

// With a point before layer 0, and none after.
inline keep_schedule entry_schedule(double keep) {
    keep_schedule schedule;
    schedule.entry = point_at(-1, keep);
    return schedule;
}

inline std::vector<score_window> no_windows(const keep_schedule & schedule) {
    return std::vector<score_window>(schedule.points.size(), score_window(1, false));
}

// The plan of a step of which nothing is remembered.
inline step_plan plan_of(const keep_schedule & schedule, step_extent extent, const step_hints & hints = {},
                         const step_memory & before = {}) {
    return plan_step(schedule, extent, hints, before, no_windows(schedule));
}

inline step_hints hints_of(position_span question) {
    step_hints hints;
    hints.question = question;
    return hints;
}

inline cell_map cells_of(const std::vector<int32_t> & positions) {
    cell_map cells;
    for (const int32_t pos : positions) {
        cells.add(pos);
    }
    return cells;
}

inline std::vector<int32_t> list_of(position_span span) { return positions_of(span); }

inline std::vector<int32_t> list_of(const std::vector<candidate> & candidates) {
    std::vector<int32_t> out;
    for (const candidate & c : candidates) {
        out.push_back(c.pos);
    }
    return out;
}

} // namespace lazygguf
