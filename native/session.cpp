// session.cpp: LazyLLM (arXiv 2407.14057) on one cell map per segment.

#include "session.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "error.h"

namespace lazygguf {
namespace {

std::vector<int32_t> range(int32_t begin, int32_t end) {
    std::vector<int32_t> out(static_cast<size_t>(std::max(end - begin, 0)));
    std::iota(out.begin(), out.end(), begin);
    return out;
}

} // namespace

struct session::step {
    const eval_params & params;
    int32_t n_past = 0;
    int32_t n_tokens = 0;
    bool is_dense = false;
    position_span question;
    std::vector<std::vector<int32_t>> query; // by pruning point: positions that ask, ascending
    std::vector<int32_t> asking;             // all of them and the newest: never pruned
    std::vector<int32_t> entered;            // positions that live before layer 0, ascending
    std::vector<int32_t> live;               // candidates of the current segment, ascending
    std::vector<int32_t> rows;               // positions to compute in it, ascending
    std::vector<float> logits;
    std::vector<std::vector<int32_t>> added; // by segment: positions given a K/V row
    std::vector<segment_report> reports;
    std::vector<int32_t> revived; // old positions computed in this step, each once

    explicit step(const eval_params & how) : params(how) {}
    bool is_decode() const { return n_past > 0 && n_tokens - n_past == 1; }
    // Is there more live than may go on? Known before the segment runs: nobody need ask where all stay.
    bool prunes(const keep_schedule & schedule, int s) const {
        const double keep = schedule.points[static_cast<size_t>(s)].keep;
        return !is_dense && keep < 1.0 && static_cast<int32_t>(live.size()) > keep_count(keep, n_tokens);
    }
};

session::session(const model & mdl, const session_params & params, keep_schedule schedule)
    : mdl_(mdl), params_(params), schedule_(std::move(schedule)), compute_(mdl, params.n_threads, cancel_) {
    if (params_.n_ctx == 0) {
        params_.n_ctx = mdl.hp.n_ctx_train;
    }
    int il_begin = 0;
    for (const pruning_point & p : schedule_.points) {
        segments_.emplace_back(mdl, il_begin, p.il + 1, params_.types);
        windows_.emplace_back(p.heads.empty() ? 1 : static_cast<int>(p.heads.size()));
        il_begin = p.il + 1;
    }
    segments_.emplace_back(mdl, il_begin, mdl.hp.n_layer, params_.types);
}

void session::check_arguments(const int32_t * tokens, int32_t n, const eval_params & params) const {
    if (n < 1) {
        fail(LAZY_STATUS_INVALID_ARGUMENT, format("%d tokens to read, expected at least 1", n));
    }
    for (int32_t i = 0; i < n; ++i) {
        if (tokens[i] < 0 || tokens[i] >= mdl_.hp.n_vocab) {
            fail(LAZY_STATUS_INVALID_ARGUMENT,
                 format("token id at index %d is %d, expected a value in [0, %d]", i, tokens[i], mdl_.hp.n_vocab - 1));
        }
    }
    if (static_cast<int64_t>(n_tokens_) + n > params_.n_ctx) {
        fail(LAZY_STATUS_CONTEXT_FULL, format("%lld tokens do not fit into a context of n_ctx %d (%d held, %d new)",
                                              static_cast<long long>(n_tokens_) + n, params_.n_ctx, n_tokens_, n));
    }
    if (params.scores == nullptr) {
        return;
    }
    if (!schedule_.entry) {
        fail(LAZY_STATUS_INVALID_ARGUMENT,
             "scores are given, but the keep schedule has no pruning point before layer 0 "
             "(il -1) that would use them");
    }
    if (params.n_scores != n_tokens_ + n) {
        fail(LAZY_STATUS_INVALID_ARGUMENT, format("%d scores, expected one for each of the %d tokens in the context",
                                                  params.n_scores, n_tokens_ + n));
    }
    for (int32_t i = 0; i < params.n_scores; ++i) {
        if (std::isinf(params.scores[i])) {
            fail(LAZY_STATUS_INVALID_ARGUMENT, format("the score at position %d is infinite, expected a number, or NaN "
                                                      "for a token that stays as it is",
                                                      i));
        }
    }
}

void session::eval(const int32_t * tokens, int32_t n, const eval_params & params) {
    check_arguments(tokens, n, params);
    cancel_.store(false);

    step st(params);
    st.n_past = n_tokens_;
    st.n_tokens = n_tokens_ + n;
    st.is_dense = st.n_tokens < schedule_.min_prompt;
    st.question = question_of(st);
    st.asking = {st.n_tokens - 1};
    for (int s = 0; !is_last(s); ++s) {
        st.query.push_back(query_of(st, s));
        st.asking.insert(st.asking.end(), st.query.back().begin(), st.query.back().end());
    }
    if (schedule_.entry) { // the question is read, whoever asks later
        const std::vector<int32_t> question = range(st.question.begin, st.question.end);
        st.asking.insert(st.asking.end(), question.begin(), question.end());
    }
    std::sort(st.asking.begin(), st.asking.end());
    st.added.resize(segments_.size());
    tokens_.insert(tokens_.end(), tokens, tokens + n);
    try {
        run(st);
    } catch (...) {
        roll_back(st);
        throw;
    }
    commit(st);
}

// The span given, if any of it is new. Else the last new tokens of a prompt, while an answer goes on asking with the
// question it answers.
position_span session::question_of(const step & st) const {
    const eval_params & p = st.params;
    if (p.query_begin >= 0 && p.query_end > std::max(p.query_begin, st.n_past)) {
        const int32_t end = std::min(p.query_end, st.n_tokens);
        return {std::max(p.query_begin, end - LAZY_MAX_QUERY), end};
    }
    if (st.is_decode() && question_.end > question_.begin && question_.end <= st.n_past) {
        return question_;
    }
    return {std::max(st.n_past, st.n_tokens - LAZY_DEFAULT_QUERY), st.n_tokens};
}

// Who asks at the end of segment s: the newest n_query positions, or the question and the newest one; those that are
// computed in this step or asked in an earlier one.
std::vector<int32_t> session::query_of(const step & st, int s) const {
    const pruning_point & point = schedule_.points[static_cast<size_t>(s)];
    std::vector<int32_t> wanted;
    if (point.keep >= 1.0) {
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
            tokens.push_back({pos, stays ? 0.0F : score, stays || pos < schedule_.n_sink || contains(st.asking, pos)});
        }
    }
    pool_scores(tokens, schedule_.entry->pool);
    std::vector<int32_t> entering;
    for (const candidate & c : select(tokens, keep_count(schedule_.entry->keep, st.n_tokens))) {
        entering.push_back(c.pos);
    }
    return entering;
}

void session::run(step & st) {
    enter(st);
    for (int s = 0; s < n_segments(); ++s) {
        run_segment(st, s);
        st.reports.push_back({static_cast<int32_t>(st.rows.size()), st.live, {}});
        if (!is_last(s)) {
            if (st.prunes(schedule_, s)) {
                st.reports.back().scores = score(st, s);
            }
            choose(st, s);
        }
    }
}

// Runs the segment's layers over st.rows, in ubatches and in position order.
void session::run_segment(step & st, int s) {
    segment_cache & seg = segments_[static_cast<size_t>(s)];
    seg.reserve_rows(seg.cells.n_used() + static_cast<int64_t>(st.rows.size()), params_.n_ctx);
    if (!is_last(s)) {
        segments_[static_cast<size_t>(s) + 1].reserve_aux(st.n_tokens, params_.n_ctx);
    }
    const auto n_ubatch = static_cast<size_t>(params_.n_ubatch);
    for (size_t begin = 0; begin < st.rows.size(); begin += n_ubatch) {
        run_ubatch(st, s, begin, std::min(begin + n_ubatch, st.rows.size()));
    }
}

void session::run_ubatch(step & st, int s, size_t begin, size_t end) {
    segment_cache & seg = segments_[static_cast<size_t>(s)];
    for (size_t i = begin; i < end; ++i) {
        st.added[static_cast<size_t>(s)].push_back(st.rows[i]);
        seg.cells.add(st.rows[i]);
    }
    static const std::vector<int32_t> nobody;
    const auto first = st.rows.begin() + static_cast<std::ptrdiff_t>(begin);
    const ubatch u = {seg.cells, tokens_, st.live, is_last(s) ? nobody : st.query[static_cast<size_t>(s)],
                      std::vector<int32_t>(first, first + static_cast<std::ptrdiff_t>(end - begin))};
    const graph_shape shape = shape_of(st, s, u, end == st.rows.size());
    const segment_cache * next = is_last(s) ? nullptr : &segments_[static_cast<size_t>(s) + 1];
    const uint64_t generation = seg.generation() + (next ? next->generation() : 0); // both only ever rise
    segment_graph & graph = compute_.prepare(s, seg.tensors(next), generation, shape);
    const graph_inputs in = inputs_of(u, shape);
    graph.set_inputs(in);
    compute_.run();
    if (shape.n_query > 0) {
        read_scores(st, s, graph, in);
    }
    if (shape.want_logits) {
        read_logits(st, graph);
    }
    report_progress(st, s, end);
}

graph_shape session::shape_of(const step & st, int s, const ubatch & u, bool is_last_ubatch) const {
    graph_shape shape;
    shape.n_rows = static_cast<int>(u.pos.size());
    shape.n_kv = segments_[static_cast<size_t>(s)].n_kv_padded();
    if (is_last(s)) {
        shape.want_logits = is_last_ubatch;
    } else if (st.is_dense || st.prunes(schedule_, s)) { // short contexts ask for the steps to come
        shape.n_query = count_queries(u);
        shape.heads = schedule_.points[static_cast<size_t>(s)].heads;
    }
    return shape;
}

// Remembers what each asking row of the ubatch looked at, rows of the cache turned into positions.
void session::read_scores(const step & st, int s, const segment_graph & graph, const graph_inputs & in) {
    const auto n_kv = static_cast<size_t>(graph.shape().n_kv);
    const cell_map & cells = segments_[static_cast<size_t>(s)].cells;
    std::vector<std::vector<float>> heads; // (n_kv * n_query) each
    for (ggml_tensor * t : graph.scores()) {
        heads.emplace_back(n_kv * in.query_rows.size());
        ggml_backend_tensor_get(t, heads.back().data(), 0, heads.back().size() * sizeof(float));
    }
    for (size_t q = 0; q < in.query_rows.size(); ++q) {
        const int32_t pos = in.pos[static_cast<size_t>(in.query_rows[q])];
        std::vector<std::vector<float>> by_head;
        for (const std::vector<float> & rows : heads) {
            std::vector<float> by_pos(static_cast<size_t>(pos) + 1, 0.0F);
            for (auto it = st.live.begin(); it != st.live.end() && *it <= pos; ++it) {
                by_pos[static_cast<size_t>(*it)] = rows[q * n_kv + static_cast<size_t>(cells.row_of(*it))];
            }
            by_head.push_back(std::move(by_pos));
        }
        windows_[static_cast<size_t>(s)].add(pos, std::move(by_head));
    }
}

void session::read_logits(step & st, const segment_graph & graph) const {
    st.logits.resize(static_cast<size_t>(mdl_.hp.n_vocab));
    ggml_backend_tensor_get(graph.logits(), st.logits.data(), 0, st.logits.size() * sizeof(float));
    if (!std::all_of(st.logits.begin(), st.logits.end(), [](float x) { return std::isfinite(x); })) {
        fail(LAZY_STATUS_FAILED, "the model's logits are not finite: its weights hold NaN or Inf, "
                                 "or are too large for its type");
    }
}

// The scores at the end of segment s, by position; NaN where a position is not live.
std::vector<float> session::score(const step & st, int s) const {
    const auto u = static_cast<size_t>(s);
    const std::vector<float> all = windows_[u].combine(st.query[u], st.n_tokens);
    std::vector<float> scores(all.size(), std::numeric_limits<float>::quiet_NaN());
    for (const int32_t pos : st.live) {
        if (!std::isfinite(all[static_cast<size_t>(pos)])) {
            fail(LAZY_STATUS_FAILED, "the model's attention is not finite: its weights hold NaN or Inf, "
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
        live.push_back({pos, score, !prunes || pos < schedule_.n_sink || contains(st.asking, pos)});
    }
    if (!prunes) {
        return live;
    }
    pool_scores(live, point.pool);
    return select(live, keep_count(point.keep, st.n_tokens));
}

// Which old positions of `live` are computed in the next segment: adds to st.revived. A decode step revives at most
// max_revive at each pruning point, the best ones, and only what is clearly above the worst of what was selected; what
// came back at an earlier point goes on beside them.
void session::revive(step & st, int s, const std::vector<candidate> & live) const {
    const cell_map & next = segments_[static_cast<size_t>(s) + 1].cells;
    const bool is_limited = st.is_decode() && !st.is_dense;
    const float least = is_limited ? static_cast<float>(1.0 + schedule_.revive_margin) * worst_score(live) : 0.0F;
    std::vector<candidate> fresh;
    std::copy_if(live.begin(), live.end(), std::back_inserter(fresh), [&](const candidate & c) {
        return c.pos < st.n_past && !next.has(c.pos) && !contains(st.revived, c.pos) && c.score >= least;
    });
    for (const candidate & c : best(fresh, is_limited ? schedule_.max_revive : -1)) {
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
}

// Work is counted in rows * layers; what later segments will compute is estimated from their keep.
void session::report_progress(step & st, int s, size_t n_done) const {
    if (cancel_.load()) {
        fail(LAZY_STATUS_CANCELLED, "cancelled");
    }
    if (!st.params.progress) {
        return;
    }
    const double n_new = st.n_tokens - st.n_past;
    double done = static_cast<double>(n_done) * segment(s).n_layers();
    double total = static_cast<double>(st.rows.size()) * segment(s).n_layers();
    for (int i = 0; i < n_segments(); ++i) {
        const size_t u = static_cast<size_t>(i);
        if (i < s) {
            done += static_cast<double>(st.added[u].size()) * segment(i).n_layers();
            total += static_cast<double>(st.added[u].size()) * segment(i).n_layers();
        } else if (i > s) {
            total += n_new * (st.is_dense ? 1.0 : schedule_.points[u - 1].keep) * segment(i).n_layers();
        }
    }
    const bool finished = is_last(s) && n_done == st.rows.size();
    const int32_t n = finished ? static_cast<int32_t>(n_new) : static_cast<int32_t>(n_new * done / total);
    if (!st.params.progress(n, static_cast<int32_t>(n_new))) {
        fail(LAZY_STATUS_CANCELLED, "cancelled by the progress callback");
    }
}

void session::commit(step & st) {
    for (size_t s = 0; s < windows_.size(); ++s) {
        windows_[s].keep_only(st.query[s]);
    }
    n_new_ = st.n_tokens - st.n_past;
    n_tokens_ = st.n_tokens;
    n_revived_ = static_cast<int32_t>(st.revived.size());
    question_ = st.question;
    entered_ = std::move(st.entered);
    logits_ = std::move(st.logits);
    reports_ = std::move(st.reports);
}

void session::roll_back(const step & st) {
    for (size_t s = 0; s < segments_.size(); ++s) {
        for (const int32_t pos : st.added[s]) {
            segments_[s].erase(pos);
        }
    }
    for (score_window & window : windows_) {
        window.trim(st.n_past);
    }
    tokens_.resize(static_cast<size_t>(st.n_past));
}

void session::reset() {
    compute_.forget();
    for (segment_cache & seg : segments_) {
        seg.clear();
    }
    for (score_window & window : windows_) {
        window.trim(0);
    }
    n_tokens_ = 0;
    tokens_.clear();
    entered_.clear();
    question_ = {};
    logits_.clear();
    reports_.clear();
    n_new_ = 0;
    n_revived_ = 0;
}

void session::trim(int32_t n_tokens) {
    if (n_tokens < 0 || n_tokens > n_tokens_) {
        fail(LAZY_STATUS_INVALID_ARGUMENT,
             format("trim to %d tokens, expected a value in [0, %d]", n_tokens, n_tokens_));
    }
    if (n_tokens == n_tokens_) {
        return;
    }
    for (segment_cache & seg : segments_) {
        seg.cells.trim(n_tokens);
    }
    for (score_window & window : windows_) {
        window.trim(n_tokens);
    }
    n_tokens_ = n_tokens;
    tokens_.resize(static_cast<size_t>(n_tokens));
    entered_.erase(std::lower_bound(entered_.begin(), entered_.end(), n_tokens), entered_.end());
    logits_.clear();
    reports_.clear();
}

} // namespace lazygguf
