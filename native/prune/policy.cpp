// policy.cpp: the rules of a step.

#include "prune/policy.h"

#include <algorithm>
#include <cmath>

namespace lazygguf {
namespace {

// Is a span given, with new tokens in it?
bool is_new(const step_extent & extent, position_span given) {
    return given.begin >= 0 && given.end > std::max(given.begin, extent.n_past);
}

keep_share share_of(const pruning_point & point) { return {point.keep, point.keep_min, point.mass}; }

// What enters by the scores from outside.
std::vector<int32_t> select_entering(const pruning_point & point, const step_plan & plan, const float * scores,
                                     const std::vector<int32_t> & entered_before) {
    std::vector<candidate> tokens;
    for (int32_t pos = 0; pos < plan.extent.n_tokens; ++pos) {
        const bool stays = std::isnan(scores[pos]); // as it is: a new token goes on, an old one if it did
        if (!stays || pos >= plan.extent.n_past || contains(entered_before, pos)) {
            tokens.push_back(outside_candidate(pos, scores[pos], plan.is_protected(pos)));
        }
    }
    pool_scores(tokens, point.pool);
    std::vector<int32_t> entering;
    for (const candidate & c : select(tokens, count_kept(tokens, share_of(point), plan.extent.n_tokens))) {
        entering.push_back(c.pos);
    }
    return entering;
}

// Of what is selected, the old positions that are to be computed in the next segment and were not computed by the step
// before, ascending. A decode step takes the best, within what its budget leaves this point.
std::vector<int32_t> find_revived(const keep_schedule & schedule, const step_plan & plan, const segment_end & end,
                                  const std::vector<candidate> & selected, const std::vector<int32_t> & before) {
    const auto above = static_cast<float>(1.0 + schedule.revive_margin);
    const float least = plan.limits_revival() ? above * worst_score(selected) : 0.0F;
    std::vector<candidate> fresh;
    std::copy_if(selected.begin(), selected.end(), std::back_inserter(fresh), [&](const candidate & c) {
        return c.pos < plan.extent.n_past && !end.next.has(c.pos) && !contains(before, c.pos) && c.score >= least;
    });
    const auto n_points_left = static_cast<int32_t>(schedule.points.size() - end.point);
    const int32_t n_left = std::max(plan.n_revive - static_cast<int32_t>(before.size()), 0);
    std::vector<int32_t> revived;
    for (const candidate & c : best(fresh, plan.n_revive < 0 ? -1 : n_left / n_points_left)) {
        revived.push_back(c.pos);
    }
    return revived;
}

} // namespace

bool runs_dense(const keep_schedule & schedule, const step_extent & extent, position_span given) {
    const bool would_ask = std::any_of(schedule.points.begin(), schedule.points.end(),
                                       [](const pruning_point & p) { return p.n_query == 0; });
    const bool is_unasked = schedule.dense_unasked && would_ask && !extent.is_decode() && !is_new(extent, given);
    return extent.n_tokens < schedule.min_prompt || is_unasked;
}

position_span find_question(const step_extent & extent, position_span given, position_span before) {
    if (is_new(extent, given)) {
        const int32_t end = std::min(given.end, extent.n_tokens);
        return {std::max(given.begin, end - MAX_QUERY), end};
    }
    if (extent.is_decode() && !before.is_empty() && before.end <= extent.n_past) {
        return before;
    }
    return {std::max(extent.n_past, extent.n_tokens - DEFAULT_QUERY), extent.n_tokens};
}

std::vector<int32_t> find_query(const pruning_point & point, const step_extent & extent, position_span question,
                                const score_window & remembered) {
    std::vector<int32_t> wanted;
    if (point.keep >= 1.0 && point.mass >= 1.0) {
        return wanted;
    }
    if (point.n_query > 0) {
        wanted = positions_of({std::max(0, extent.n_tokens - point.n_query), extent.n_tokens});
    } else {
        wanted = positions_of(question);
        if (wanted.empty() || wanted.back() != extent.n_tokens - 1) {
            wanted.push_back(extent.n_tokens - 1);
        }
    }
    const auto is_lost = [&](int32_t pos) { return pos < extent.n_past && !remembered.has(pos); };
    wanted.erase(std::remove_if(wanted.begin(), wanted.end(), is_lost), wanted.end());
    return wanted;
}

int32_t revive_limit(const keep_schedule & schedule, double n_saved) {
    return schedule.mean_revive == 0.0 ? schedule.max_revive : static_cast<int32_t>(n_saved);
}

step_plan plan_step(const keep_schedule & schedule, const step_extent & extent, const step_hints & hints,
                    const step_memory & before, const std::vector<score_window> & remembered) {
    step_plan plan;
    plan.extent = extent;
    plan.is_dense = runs_dense(schedule, extent, hints.question);
    plan.question = find_question(extent, hints.question, before.question);
    plan.asking = {extent.n_tokens - 1};
    for (size_t i = 0; i < schedule.points.size(); ++i) {
        plan.query.push_back(find_query(schedule.points[i], extent, plan.question, remembered[i]));
        plan.asking.insert(plan.asking.end(), plan.query.back().begin(), plan.query.back().end());
    }
    if (schedule.entry) { // the question is always read, also where no later point asks with it
        const std::vector<int32_t> question = positions_of(plan.question);
        plan.asking.insert(plan.asking.end(), question.begin(), question.end());
    }
    std::sort(plan.asking.begin(), plan.asking.end());
    plan.protect = merged(before.protect, hints.protect);
    plan.n_sink = schedule.n_sink;
    plan.n_revive = plan.limits_revival() ? revive_limit(schedule, before.n_saved) : -1;
    return plan;
}

choice choose_entering(const keep_schedule & schedule, const step_plan & plan, const float * scores,
                       const std::vector<int32_t> & entered_before, const cell_map & first) {
    const step_extent & extent = plan.extent;
    choice out;
    if (plan.is_dense || !schedule.entry) {
        out.live = positions_of({0, extent.n_tokens});
    } else if (scores != nullptr) {
        out.live = select_entering(*schedule.entry, plan, scores, entered_before);
    } else {
        out.live = merged(entered_before, positions_of({extent.n_past, extent.n_tokens}));
    }
    for (const int32_t pos : out.live) {
        if (!first.has(pos)) {
            out.rows.push_back(pos);
            if (pos < extent.n_past) {
                out.revived.push_back(pos);
            }
        }
    }
    return out;
}

bool may_prune(const pruning_point & point, const step_plan & plan, size_t n_live) {
    const double least = point.mass < 1.0 ? point.keep_min : point.keep;
    return !plan.is_dense && least < 1.0 && static_cast<int32_t>(n_live) > keep_count(least, plan.extent.n_tokens);
}

std::vector<candidate> select_live(const pruning_point & point, const step_plan & plan,
                                   const std::vector<int32_t> & live, const std::vector<float> & scores) {
    std::vector<candidate> tokens;
    if (scores.empty()) {
        for (const int32_t pos : live) {
            tokens.push_back({pos, 0.0F, true});
        }
        return tokens;
    }
    for (const int32_t pos : live) {
        tokens.push_back({pos, scores[static_cast<size_t>(pos)], plan.is_protected(pos)});
    }
    pool_scores(tokens, point.pool);
    return select(tokens, count_kept(tokens, share_of(point), plan.extent.n_tokens));
}

choice choose_going_on(const keep_schedule & schedule, const step_plan & plan, const segment_end & end,
                       const choice & now) {
    const std::vector<candidate> selected = select_live(schedule.points[end.point], plan, now.live, end.scores);
    choice out;
    out.revived = merged(now.revived, find_revived(schedule, plan, end, selected, now.revived));
    for (const candidate & c : selected) {
        const bool is_held = end.next.has(c.pos);
        const bool is_computed = !is_held && (c.pos >= plan.extent.n_past || contains(out.revived, c.pos));
        if (is_computed) {
            out.rows.push_back(c.pos);
        }
        if (is_computed || is_held) { // what the budget leaves out is not seen in this step
            out.live.push_back(c.pos);
        }
    }
    if (schedule.decode_cached && plan.extent.is_decode()) {
        out.live = merged(out.live, end.next.positions());
    }
    return out;
}

bool is_late(const keep_schedule & schedule, const step_extent & extent, const step_hints & hints,
             const step_memory & before) {
    const bool says_more = hints.question.begin >= 0 || hints.scores != nullptr || !hints.protect.empty();
    return !schedule.points.empty() && extent.is_decode() && !says_more && before.next.n_past == extent.n_past;
}

choice choose_late(const keep_schedule & schedule, const step_plan & plan, const choice & chosen,
                   const cell_map & held) {
    const std::vector<int32_t> newest = positions_of({plan.extent.n_past, plan.extent.n_tokens});
    choice out = {merged(chosen.live, newest), merged(chosen.rows, newest), chosen.revived};
    if (schedule.decode_cached) {
        out.live = merged(out.live, held.positions());
    }
    return out;
}

choice choose_next(const keep_schedule & schedule, const step_plan & plan, const segment_end & end,
                   const choice & now) {
    choice next = choose_going_on(schedule, plan, end, now);
    next.live = merged(next.live, now.revived);
    next.rows = merged(next.rows, now.revived);
    return next;
}

next_step same_again(const step_extent & extent, const std::vector<choice> & segments) {
    next_step next;
    next.n_past = extent.n_tokens;
    next.segments.resize(segments.size());
    for (size_t s = 1; s < segments.size(); ++s) {
        next.segments[s].live = segments[s].live;
    }
    return next;
}

step_plan plan_next(const keep_schedule & schedule, const step_plan & plan, double n_saved) {
    step_plan next = plan;
    next.n_revive = plan.limits_revival() ? revive_limit(schedule, n_saved) : -1;
    return next;
}

double saved_after(const keep_schedule & schedule, const step_extent & extent, double n_saved, size_t n_revived) {
    const double n_most = std::max(schedule.max_revive, 0);
    if (!extent.is_decode()) {
        return n_most;
    }
    const double n_left = std::max(n_saved - static_cast<double>(n_revived), 0.0);
    return std::min(n_left + schedule.mean_revive, n_most);
}

step_memory trimmed(const keep_schedule & schedule, step_memory memory, int32_t n_tokens) {
    const auto cut = [n_tokens](std::vector<int32_t> & positions) {
        positions.erase(std::lower_bound(positions.begin(), positions.end(), n_tokens), positions.end());
    };
    cut(memory.entered);
    cut(memory.protect);
    memory.n_saved = std::max(schedule.max_revive, 0);
    memory.next = {};
    return memory;
}

} // namespace lazygguf
