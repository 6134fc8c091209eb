// choices.cpp: what a session decides in a step: who asks, what enters, what lives on and what comes back.

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "run/step.h"

namespace lazygguf {
namespace {

std::vector<int32_t> range(int32_t begin, int32_t end) {
    std::vector<int32_t> out(static_cast<size_t>(std::max(end - begin, 0)));
    std::iota(out.begin(), out.end(), begin);
    return out;
}

} // namespace

// Who asks at the end of each segment, and who is never pruned for it.
void session::find_asking(step & st) const {
    std::set_union(protected_.begin(), protected_.end(), st.params.protect.begin(), st.params.protect.end(),
                   std::back_inserter(st.kept_out));
    st.asking = {st.n_tokens - 1};
    st.query.resize(segments_.size());
    for (int s = 0; !is_last(s); ++s) {
        std::vector<int32_t> & query = st.query[static_cast<size_t>(s)];
        query = query_of(st, s);
        st.asking.insert(st.asking.end(), query.begin(), query.end());
    }
    if (schedule_.entry) { // the question is read, whoever asks later
        const std::vector<int32_t> question = range(st.question.begin, st.question.end);
        st.asking.insert(st.asking.end(), question.begin(), question.end());
    }
    std::sort(st.asking.begin(), st.asking.end());
}

// Is a query span given, with new tokens in it?
bool session::has_span(const step & st) const {
    return st.params.query_begin >= 0 && st.params.query_end > std::max(st.params.query_begin, st.n_past);
}

// A prompt that the schedule would prune by its question, which is not known.
bool session::is_unasked(const step & st) const {
    const bool would_ask = std::any_of(schedule_.points.begin(), schedule_.points.end(),
                                       [](const pruning_point & p) { return p.n_query == 0; });
    return schedule_.dense_unasked && would_ask && !st.is_decode() && !has_span(st);
}

// The span given, if any of it is new. Else the last new tokens of a prompt, while an answer goes on asking with the
// question it answers.
position_span session::question_of(const step & st) const {
    const eval_params & p = st.params;
    if (has_span(st)) {
        const int32_t end = std::min(p.query_end, st.n_tokens);
        return {std::max(p.query_begin, end - MAX_QUERY), end};
    }
    if (st.is_decode() && question_.end > question_.begin && question_.end <= st.n_past) {
        return question_;
    }
    return {std::max(st.n_past, st.n_tokens - DEFAULT_QUERY), st.n_tokens};
}

// Who asks at the end of segment s: the newest n_query positions, or the question and the newest one; those that are
// computed in this step or asked in an earlier one.
std::vector<int32_t> session::query_of(const step & st, int s) const {
    const pruning_point & point = schedule_.points[static_cast<size_t>(s)];
    std::vector<int32_t> wanted;
    if (point.keep >= 1.0 && point.mass >= 1.0) {
        return wanted;
    }
    if (point.n_query > 0) {
        wanted = range(std::max(0, st.n_tokens - point.n_query), st.n_tokens);
    } else {
        wanted = range(st.question.begin, st.question.end);
        if (wanted.empty() || wanted.back() != st.n_tokens - 1) {
            wanted.push_back(st.n_tokens - 1);
        }
    }
    const score_window & window = windows_[static_cast<size_t>(s)];
    const auto lost = [&](int32_t pos) { return pos < st.n_past && !window.has(pos); };
    wanted.erase(std::remove_if(wanted.begin(), wanted.end(), lost), wanted.end());
    return wanted;
}

// What lives before layer 0: the best by the scores from outside, if any; else all new tokens and what lived before.
// What was not read yet is read now: a token that waits there has its embedding as aux row.
void session::enter(step & st) const {
    if (st.is_dense || !schedule_.entry) {
        st.entered = range(0, st.n_tokens);
    } else if (st.params.scores != nullptr) {
        st.entered = select_entering(st);
    } else {
        st.entered = entered_;
        const std::vector<int32_t> fresh = range(st.n_past, st.n_tokens);
        st.entered.insert(st.entered.end(), fresh.begin(), fresh.end());
    }
    st.live = st.entered;
    for (const int32_t pos : st.live) {
        if (!segment(0).cells.has(pos)) {
            st.rows.push_back(pos);
            if (pos < st.n_past) {
                st.revived.push_back(pos);
            }
        }
    }
}

std::vector<int32_t> session::select_entering(const step & st) const {
    std::vector<candidate> tokens;
    for (int32_t pos = 0; pos < st.n_tokens; ++pos) {
        const float score = st.params.scores[pos];
        const bool stays = std::isnan(score); // as it is: a new token goes on, an old one if it did
        if (!stays || pos >= st.n_past || contains(entered_, pos)) {
            tokens.push_back(outside_candidate(pos, score, st.is_protected(pos, schedule_.n_sink)));
        }
    }
    const pruning_point & point = *schedule_.entry;
    pool_scores(tokens, point.pool);
    const int32_t n_keep = count_kept(tokens, {point.keep, point.keep_min, point.mass}, st.n_tokens);
    std::vector<int32_t> entering;
    for (const candidate & c : select(tokens, n_keep)) {
        entering.push_back(c.pos);
    }
    return entering;
}

// The scores at the end of segment s, by position; NaN where a position is not live.
std::vector<float> session::score(const step & st, int s) const {
    const auto u = static_cast<size_t>(s);
    const std::vector<float> all = windows_[u].combine(st.query[u], st.n_tokens);
    std::vector<float> scores(all.size(), std::numeric_limits<float>::quiet_NaN());
    for (const int32_t pos : st.live) {
        if (!std::isfinite(all[static_cast<size_t>(pos)])) {
            fail(status::failed, "the model's attention is not finite: its weights hold NaN or Inf, "
                                 "or are too large for its type");
        }
        scores[static_cast<size_t>(pos)] = all[static_cast<size_t>(pos)];
    }
    return scores;
}

// What is selected at the end of segment s, by score.
std::vector<candidate> session::select_live(const step & st, int s) const {
    const pruning_point & point = schedule_.points[static_cast<size_t>(s)];
    const bool prunes = st.prunes(schedule_, s);
    const std::vector<float> & scores = st.reports.back().scores;
    std::vector<candidate> live;
    for (const int32_t pos : st.live) {
        const float score = prunes ? scores[static_cast<size_t>(pos)] : 0.0F;
        live.push_back({pos, score, !prunes || st.is_protected(pos, schedule_.n_sink)});
    }
    if (!prunes) {
        return live;
    }
    pool_scores(live, point.pool);
    return select(live, count_kept(live, {point.keep, point.keep_min, point.mass}, st.n_tokens));
}

// How many a decode step may revive at the end of segment s: an even part of what is left of the step's budget for this
// point and those after it, so that the later ones, which see best, have theirs.
int32_t session::revive_budget(const step & st, int s) const {
    if (schedule_.max_revive < 0) {
        return -1;
    }
    const int32_t n_most = schedule_.mean_revive == 0.0 ? schedule_.max_revive : static_cast<int32_t>(saved_);
    const auto n_revived = static_cast<int32_t>(st.revived.size());
    const auto n_points = static_cast<int32_t>(segments_.size()) - 1 - s;
    return std::max(n_most - n_revived, 0) / n_points;
}

// What the next decode step may revive: all of max_revive after a prompt, what was saved since after a decode step.
double session::saved_after(const step & st) const {
    const double n_most = std::max(schedule_.max_revive, 0);
    if (!st.is_decode()) {
        return n_most;
    }
    const double n_left = std::max(saved_ - static_cast<double>(st.revived.size()), 0.0);
    return std::min(n_left + schedule_.mean_revive, n_most);
}

// Which old positions of `live` are computed in the next segment: adds to st.revived. A decode step revives within its
// budget, the best first, and only what is clearly above the worst of what was selected; what came back at an earlier
// point goes on beside them.
void session::revive(step & st, int s, const std::vector<candidate> & live) const {
    const cell_map & next = segments_[static_cast<size_t>(s) + 1].cells;
    const bool is_limited = st.is_decode() && !st.is_dense;
    const float least = is_limited ? static_cast<float>(1.0 + schedule_.revive_margin) * worst_score(live) : 0.0F;
    std::vector<candidate> fresh;
    std::copy_if(live.begin(), live.end(), std::back_inserter(fresh), [&](const candidate & c) {
        return c.pos < st.n_past && !next.has(c.pos) && !contains(st.revived, c.pos) && c.score >= least;
    });
    for (const candidate & c : best(fresh, is_limited ? revive_budget(st, s) : -1)) {
        st.revived.push_back(c.pos);
    }
    std::sort(st.revived.begin(), st.revived.end());
}

// From the scores at the end of segment s: what lives in the next segment, and which of it must be computed there.
void session::choose(step & st, int s) const {
    const cell_map & next = segments_[static_cast<size_t>(s) + 1].cells;
    const std::vector<candidate> selected = select_live(st, s);
    revive(st, s, selected);
    st.live.clear();
    st.rows.clear();
    for (const candidate & c : selected) {
        const bool cached = next.has(c.pos);
        const bool computed = !cached && (c.pos >= st.n_past || contains(st.revived, c.pos));
        if (computed) {
            st.rows.push_back(c.pos);
        }
        if (computed || cached) { // what the budget leaves out is not seen in this step
            st.live.push_back(c.pos);
        }
    }
    if (schedule_.decode_cached && st.is_decode()) {
        std::vector<int32_t> seen;
        const std::vector<int32_t> held = next.positions();
        std::set_union(st.live.begin(), st.live.end(), held.begin(), held.end(), std::back_inserter(seen));
        st.live = std::move(seen);
    }
}

} // namespace lazygguf
