// policy.h: what a step decides: who asks, what enters before layer 0, what lives on, what is revived.
//
// Owns the rules of LazyLLM (arXiv 2407.14057) and those added to them. Each function takes values and returns one; a
// session calls them in the order in which they stand here and does what they say. No ggml, no model, no cache.
#pragma once

#include <cstdint>
#include <vector>

#include "prune/cells.h"
#include "prune/positions.h"
#include "prune/schedule.h"
#include "prune/scores.h"
#include "prune/select.h"

namespace lazygguf {

// How a step grows the context.
struct step_extent {
    int32_t n_past = 0;   // tokens in the context before it
    int32_t n_tokens = 0; // with it

    bool is_decode() const { return n_past > 0 && n_tokens - n_past == 1; }
};

// What the caller says about the tokens of a step.
struct step_hints {
    position_span question = {-1, -1}; // who asks where a point's n_query is 0; a negative begin: not known
    std::vector<int32_t> protect;      // never pruned, in this step and later ones; ascending
    const float * scores = nullptr;    // F32 (n_scores) by position, for the point before layer 0; null: none
    int32_t n_scores = 0;
};

// What lives in a segment of layers. All lists ascend.
struct choice {
    std::vector<int32_t> live;    // positions that its layers attend to
    std::vector<int32_t> rows;    // those of them that it computes, having no K/V rows there yet
    std::vector<int32_t> revived; // old positions computed by the step so far, in this segment or before, each once
};

// What the points of a step choose for the next one, if that is a plain decode step: it then runs as one graph, since
// all that lives and is computed in it is known before its first layer.
struct next_step {
    int32_t n_past = -1;          // tokens in the context that it goes on from; -1: there is no choice
    std::vector<choice> segments; // by segment, without the token to come; the first segment's is empty
};

// What a step leaves to the next one.
struct step_memory {
    std::vector<int32_t> entered; // positions that lived before layer 0, ascending
    std::vector<int32_t> protect; // never pruned, by the caller's word in any step; ascending
    position_span question;       // who asked where a point's n_query is 0
    double n_saved = 0;           // tokens that the next decode step may revive, where mean_revive limits them
    next_step next;
};

// Who asks in a step, and what no point of it prunes. Known before layer 0.
struct step_plan {
    step_extent extent;
    bool is_dense = false;                   // nothing is pruned
    position_span question;                  // who asks where a point's n_query is 0
    std::vector<std::vector<int32_t>> query; // by point: the positions that ask there, ascending
    std::vector<int32_t> asking;             // they, the newest token and, before layer 0, the question; ascending
    std::vector<int32_t> protect;            // never pruned, by the caller's word in any step; ascending
    int32_t n_sink = 0;                      // the first tokens, never pruned
    int32_t n_revive = -1;                   // old tokens that the points may revive in all; -1: any number

    bool is_protected(int32_t pos) const { return pos < n_sink || contains(asking, pos) || contains(protect, pos); }
    // Only a decode step that prunes is limited; a prompt may revive any number.
    bool limits_revival() const { return extent.is_decode() && !is_dense; }
};

// ---- who asks ----

// Does the step run without pruning? Short contexts do, and prompts whose question is not known where one would ask.
bool runs_dense(const keep_schedule & schedule, const step_extent & extent, position_span given);

// Who asks where a point's n_query is 0: the span given, if any of it is new, at most its last MAX_QUERY tokens; else
// the last new tokens of a prompt. A decode step without a span goes on with the question of the step before.
position_span find_question(const step_extent & extent, position_span given, position_span before);

// Who asks at a point: the newest n_query positions, or the question and the newest one; those that the step computes
// or that `remembered` has from an earlier step. Nobody where all go on anyway.
std::vector<int32_t> find_query(const pruning_point & point, const step_extent & extent, position_span question,
                                const score_window & remembered);

// How many old tokens the points of a decode step may revive in all; -1: any number.
int32_t revive_limit(const keep_schedule & schedule, double n_saved);

// The plan of a step, by the rules above. remembered: by point, what earlier askers looked at.
step_plan plan_step(const keep_schedule & schedule, const step_extent & extent, const step_hints & hints,
                    const step_memory & before, const std::vector<score_window> & remembered);

// ---- what enters ----

// What lives before layer 0: the best by the scores from outside, if any; else all new tokens and what lived there in
// the step before. What the first segment has not read yet is read now: a token that waits there has its embedding as
// aux row. scores: F32 (n_tokens) or null; NaN: a new token goes on, an old one if it did. first: the first segment's
// cells.
choice choose_entering(const keep_schedule & schedule, const step_plan & plan, const float * scores,
                       const std::vector<int32_t> & entered_before, const cell_map & first);

// ---- what lives on ----

// May fewer than n_live go on at the point? Known before the segment runs: where all stay, no scores are needed.
bool may_prune(const pruning_point & point, const step_plan & plan, size_t n_live);

// What is selected at a point, with its score (after pooling). scores: by position; empty: the point does not prune.
std::vector<candidate> select_live(const pruning_point & point, const step_plan & plan,
                                   const std::vector<int32_t> & live, const std::vector<float> & scores);

// Where a segment ends: the number of its point, the scores there and the next segment's cells.
struct segment_end {
    size_t point;
    const std::vector<float> & scores; // by position; empty: the point does not prune
    const cell_map & next;
};

// From what lives in a segment, what lives in the next one and is computed there. A decode step may revive a
// limited number; each point gets an equal part of what is left, so later points (which score best) are not starved.
// Only tokens clearly above the lowest selected score return.
choice choose_going_on(const keep_schedule & schedule, const step_plan & plan, const segment_end & end,
                       const choice & now);

// ---- a plain decode step, whose points have chosen one step before ----

// Does the step go by what the one before it chose? A decode step does of which the caller says nothing more than the
// token, unless the context was cut or changed in between.
bool is_late(const keep_schedule & schedule, const step_extent & extent, const step_hints & hints,
             const step_memory & before);

// What lives and is computed in a segment after the first one: what was chosen for it, and the newest token. held: the
// segment's cells before the step.
choice choose_late(const keep_schedule & schedule, const step_plan & plan, const choice & chosen,
                   const cell_map & held);

// What the point chooses for the next step, by the rule of choose_going_on: what its scores revive is computed beside
// the next token. now.live: what lives in the segment that ends there; now.revived: what the next step brings back at
// earlier points. That has no score here yet and goes on in any case, as a new token does. plan: the step's, with what
// the next step may revive.
choice choose_next(const keep_schedule & schedule, const step_plan & plan, const segment_end & end, const choice & now);

// What a step that chose as it went leaves to the next one: the same lives on, and nothing comes back.
next_step same_again(const step_extent & extent, const std::vector<choice> & segments);

// The plan by which the points of a step choose for the next one, which may revive as n_saved says.
step_plan plan_next(const keep_schedule & schedule, const step_plan & plan, double n_saved);

// ---- what the next step may do ----

// What the next decode step may revive: all of max_revive after a prompt, what was saved since after a decode step.
double saved_after(const keep_schedule & schedule, const step_extent & extent, double n_saved, size_t n_revived);

// What is left of it when the context is cut to n_tokens. The next step may revive as after a prompt and chooses as it
// goes, so that repeating a prompt gives the same result.
step_memory trimmed(const keep_schedule & schedule, step_memory memory, int32_t n_tokens);

} // namespace lazygguf
