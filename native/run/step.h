// step.h: one eval in progress, known to its session only. Beside each field stands who fills it.
#pragma once

#include <utility>
#include <vector>

#include "run/recording.h"
#include "run/session.h"

namespace lazygguf {

struct session::step {
    const eval_params & params;
    step_plan plan;                          // plan_step: who asks, what is never pruned
    bool is_late;                            // eval: the segments were chosen for by the step before
    std::vector<choice> segments;            // choose_entering, choose_going_on, choose_late: what lives in each
    next_step next;                          // eval: what its points choose for the next step
    double n_saved = 0;                      // eval: what the next step may revive
    std::vector<std::vector<int32_t>> added; // run_ubatch: by segment, positions given a K/V row, for roll_back
    step_result result;                      // eval: the reports; read_logits: the logits; commit: the counts
    recording record;                        // run_ubatch, in the last segment; handed out where the step goes well

    step(const eval_params & how, step_plan planned, bool is_late_one, size_t n_segments, int n_head)
        : params(how), plan(std::move(planned)), is_late(is_late_one), segments(n_segments), added(n_segments),
          record(how.attention, how.hints.question, plan.extent.n_tokens, n_head) {
        result.segments.resize(n_segments);
    }

    // Positions that ask at the end of a segment: at its point, or at the last one's end for the record.
    const std::vector<int32_t> & query(size_t s) const {
        return s < plan.query.size() ? plan.query[s] : record.query();
    }
};

} // namespace lazygguf
