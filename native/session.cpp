// session.cpp: LazyLLM (arXiv 2407.14057) on one cell map per segment.

#include "session.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "error.h"

namespace lazygguf {
namespace {

constexpr ggml_fp16_t F16_ZERO = 0x0000;
constexpr ggml_fp16_t F16_NEG_INF = 0xfc00;
constexpr int32_t HIDDEN = std::numeric_limits<int32_t>::max();

std::vector<int32_t> range(int32_t begin, int32_t end) {
    std::vector<int32_t> out(static_cast<size_t>(std::max(end - begin, 0)));
    std::iota(out.begin(), out.end(), begin);
    return out;
}

// Position held by each K/V row, HIDDEN where the row is free, padding, or not live in this step.
std::vector<int32_t> visible_rows(const cell_map & cells, const std::vector<int32_t> & live, int32_t n_kv) {
    std::vector<int32_t> rows(static_cast<size_t>(n_kv), HIDDEN);
    for (const int32_t pos : live) {
        rows[static_cast<size_t>(cells.row_of(pos))] = pos;
    }
    return rows;
}

// Positions that ask at a pruning point: the newest ones, or the part of the query span that is new.
std::vector<int32_t> query_positions(const pruning_point & point, const eval_params & params, int32_t n_past,
                                     int32_t n) {
    int32_t begin = n - (point.n_query > 0 ? point.n_query : LAZY_DEFAULT_QUERY);
    int32_t end = n;
    if (point.n_query == 0 && params.query_begin >= 0) {
        end = std::min(params.query_end, n);
        begin = std::max(params.query_begin, end - LAZY_MAX_QUERY);
    }
    std::vector<int32_t> out = range(std::max(begin, n_past), end);
    return out.empty() ? range(n - 1, n) : out; // the span was read before: the newest token asks
}

} // namespace

struct session::step {
    const int32_t * tokens;
    const eval_params & params;
    int32_t n_past = 0;
    int32_t n_tokens = 0;
    bool is_dense = false;
    std::vector<std::vector<int32_t>> query; // by pruning point: positions, ascending
    std::vector<int32_t> live;               // candidates of the current segment, ascending
    std::vector<int32_t> rows;               // positions to compute in it, ascending
    std::vector<float> scores;               // by position, of the current pruning point
    std::vector<float> logits;
    std::vector<std::vector<int32_t>> added; // by segment: positions given a K/V row
    std::vector<segment_report> reports;
    int32_t n_revived = 0;

    step(const int32_t * ids, const eval_params & how) : tokens(ids), params(how) {}
    bool is_decode() const { return n_past > 0 && n_tokens - n_past == 1; }
    bool prunes(const keep_schedule & schedule, int s) const {
        return !is_dense && schedule.points[static_cast<size_t>(s)].keep < 1.0;
    }
};

session::session(const model & mdl, const session_params & params, keep_schedule schedule)
    : mdl_(mdl), params_(params), schedule_(std::move(schedule)), compute_(mdl, params.n_threads, cancel_) {
    if (params_.n_ctx == 0) {
        params_.n_ctx = mdl.hp.n_ctx_train;
    }
    int il_begin = 0;
    for (const pruning_point & p : schedule_.points) {
        const int n_query = p.keep >= 1.0 ? 0 : p.n_query > 0 ? p.n_query : LAZY_MAX_QUERY;
        segments_.emplace_back(mdl, il_begin, p.il + 1, params_.types, n_query);
        il_begin = p.il + 1;
    }
    segments_.emplace_back(mdl, il_begin, mdl.hp.n_layer, params_.types, 0);
}

void session::check_tokens(const int32_t * tokens, int32_t n) const {
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
}

void session::eval(const int32_t * tokens, int32_t n, const eval_params & params) {
    check_tokens(tokens, n);
    cancel_.store(false);

    step st(tokens, params);
    st.n_past = n_tokens_;
    st.n_tokens = n_tokens_ + n;
    st.is_dense = st.n_tokens < schedule_.min_prompt;
    st.added.resize(segments_.size());
    for (const pruning_point & p : schedule_.points) {
        st.query.push_back(query_positions(p, params, st.n_past, st.n_tokens));
    }
    try {
        run(st);
    } catch (...) {
        roll_back(st);
        throw;
    }
    n_tokens_ = st.n_tokens;
    n_new_ = n;
    n_revived_ = st.n_revived;
    logits_ = std::move(st.logits);
    reports_ = std::move(st.reports);
}

void session::run(step & st) {
    st.live = range(0, st.n_tokens);
    st.rows = range(st.n_past, st.n_tokens);
    for (int s = 0; s < n_segments(); ++s) {
        run_segment(st, s);
        st.reports.push_back({static_cast<int32_t>(st.rows.size()), st.live, std::move(st.scores)});
        st.scores.clear();
        if (!is_last(s)) {
            choose(st, s);
            const auto first_new = std::lower_bound(st.rows.begin(), st.rows.end(), st.n_past);
            st.n_revived += static_cast<int32_t>(first_new - st.rows.begin());
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
    const graph_shape shape = shape_of(st, s, begin, end);
    const segment_cache * next = is_last(s) ? nullptr : &segments_[static_cast<size_t>(s) + 1];
    const uint64_t generation = seg.generation() + (next ? next->generation() : 0); // both only ever rise
    segment_graph & graph = compute_.prepare(s, seg.tensors(next), generation, shape);
    graph.set_inputs(inputs_of(st, s, shape, begin, end));
    compute_.run();
    if (shape.n_query > 0) {
        read_scores(st, s, graph);
    }
    if (shape.want_logits) {
        read_logits(st, graph);
    }
    report_progress(st, s, end);
}

graph_shape session::shape_of(const step & st, int s, size_t begin, size_t end) const {
    graph_shape shape;
    shape.n_rows = static_cast<int>(end - begin);
    shape.n_kv = segments_[static_cast<size_t>(s)].n_kv_padded();
    const bool is_last_ubatch = end == st.rows.size();
    if (is_last(s)) {
        shape.want_logits = is_last_ubatch;
    } else if (st.prunes(schedule_, s)) {
        const std::vector<int32_t> & query = st.query[static_cast<size_t>(s)];
        for (size_t i = begin; i < end; ++i) {
            shape.n_query_rows += std::binary_search(query.begin(), query.end(), st.rows[i]) ? 1 : 0;
        }
        shape.n_query = is_last_ubatch ? static_cast<int>(query.size()) : 0;
        shape.heads = schedule_.points[static_cast<size_t>(s)].heads;
    }
    return shape;
}

graph_inputs session::inputs_of(const step & st, int s, const graph_shape & shape, size_t begin, size_t end) const {
    const cell_map & cells = segments_[static_cast<size_t>(s)].cells;
    const auto n_kv = static_cast<size_t>(shape.n_kv);
    graph_inputs in;
    in.pos.assign(st.rows.begin() + static_cast<std::ptrdiff_t>(begin),
                  st.rows.begin() + static_cast<std::ptrdiff_t>(end));
    for (const int32_t pos : in.pos) {
        in.kv_rows.push_back(cells.row_of(pos));
        if (s == 0) {
            in.tokens.push_back(st.tokens[pos - st.n_past]);
        }
    }
    // rows of this segment that are computed after this ubatch have no row yet, and are later positions or not read
    std::vector<int32_t> held;
    std::copy_if(st.live.begin(), st.live.end(), std::back_inserter(held), [&](int32_t pos) { return cells.has(pos); });
    const std::vector<int32_t> row_pos = visible_rows(cells, held, shape.n_kv);
    in.mask.resize(n_kv * in.pos.size());
    for (size_t i = 0; i < in.pos.size(); ++i) {
        for (size_t r = 0; r < n_kv; ++r) {
            in.mask[i * n_kv + r] = row_pos[r] <= in.pos[i] ? F16_ZERO : F16_NEG_INF;
        }
    }
    if (shape.n_query_rows == 0 && shape.n_query == 0) {
        return in;
    }
    const std::vector<int32_t> & query = st.query[static_cast<size_t>(s)];
    for (size_t i = 0; i < query.size(); ++i) {
        const auto row = std::lower_bound(in.pos.begin(), in.pos.end(), query[i]);
        if (row != in.pos.end() && *row == query[i]) {
            in.query_rows.push_back(static_cast<int32_t>(row - in.pos.begin()));
            in.query_slots.push_back(static_cast<int64_t>(i));
        }
        for (size_t r = 0; shape.n_query > 0 && r < n_kv; ++r) {
            in.query_mask.push_back(row_pos[r] <= query[i] ? 0.0F : -INFINITY);
        }
    }
    return in;
}

// Combines heads by max and turns rows into positions.
void session::read_scores(step & st, int s, const segment_graph & graph) const {
    const auto n_kv = static_cast<size_t>(graph.shape().n_kv);
    std::vector<float> rows(n_kv, 0.0F);
    std::vector<float> head(n_kv);
    for (ggml_tensor * t : graph.scores()) {
        ggml_backend_tensor_get(t, head.data(), 0, n_kv * sizeof(float));
        std::transform(rows.begin(), rows.end(), head.begin(), rows.begin(),
                       [](float a, float b) { return std::isnan(b) ? b : std::max(a, b); });
    }
    const cell_map & cells = segments_[static_cast<size_t>(s)].cells;
    st.scores.assign(static_cast<size_t>(st.n_tokens), std::numeric_limits<float>::quiet_NaN());
    for (const int32_t pos : st.live) {
        const float score = rows[static_cast<size_t>(cells.row_of(pos))];
        if (!std::isfinite(score)) {
            fail(LAZY_STATUS_FAILED, "the model's attention is not finite: its weights hold NaN or Inf, "
                                     "or are too large for its type");
        }
        st.scores[static_cast<size_t>(pos)] = score;
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

// From the scores at the end of segment s: what lives in the next segment, and which of it must be computed there.
void session::choose(step & st, int s) const {
    const cell_map & next = segments_[static_cast<size_t>(s) + 1].cells;
    std::vector<candidate> wanted;
    if (!st.prunes(schedule_, s)) {
        for (const int32_t pos : st.live) {
            wanted.push_back({pos, 0.0F, true});
        }
    } else {
        const pruning_point & point = schedule_.points[static_cast<size_t>(s)];
        std::vector<int32_t> asking = {st.n_tokens - 1}; // the newest token is never pruned: decode needs its logits
        for (const std::vector<int32_t> & query : st.query) {
            asking.insert(asking.end(), query.begin(), query.end()); // it asks at the later points too
        }
        std::sort(asking.begin(), asking.end());
        const std::vector<float> & scores = st.reports.back().scores;
        for (const int32_t pos : st.live) {
            const bool asks = std::binary_search(asking.begin(), asking.end(), pos);
            wanted.push_back({pos, scores[static_cast<size_t>(pos)], asks || pos < schedule_.n_sink});
        }
        pool_scores(wanted, point.pool);
        wanted = select(wanted, keep_count(point.keep, st.n_tokens));
    }

    std::vector<candidate> old_missing;
    std::copy_if(wanted.begin(), wanted.end(), std::back_inserter(old_missing),
                 [&](const candidate & c) { return c.pos < st.n_past && !next.has(c.pos); });
    const bool limited = st.is_decode() && !st.is_dense;
    const std::vector<candidate> revived = best(old_missing, limited ? schedule_.max_revive : -1);

    st.live.clear();
    st.rows.clear();
    auto is_earlier = [](const candidate & a, const candidate & b) { return a.pos < b.pos; };
    for (const candidate & c : wanted) {
        const bool cached = next.has(c.pos);
        if (cached || c.pos >= st.n_past || std::binary_search(revived.begin(), revived.end(), c, is_earlier)) {
            st.live.push_back(c.pos);
        }
        if (!st.live.empty() && st.live.back() == c.pos && !cached) {
            st.rows.push_back(c.pos);
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

void session::roll_back(const step & st) {
    for (size_t s = 0; s < segments_.size(); ++s) {
        for (const int32_t pos : st.added[s]) {
            segments_[s].cells.remove(pos);
        }
    }
}

void session::reset() {
    compute_.forget();
    for (segment_cache & seg : segments_) {
        seg.clear();
    }
    n_tokens_ = 0;
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
    n_tokens_ = n_tokens;
    logits_.clear();
    reports_.clear();
}

} // namespace lazygguf
