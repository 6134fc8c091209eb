// session.cpp: LazyLLM (arXiv 2407.14057) on one cell map per segment.

#include "run/session.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "base/error.h"
#include "run/step.h"

namespace lazygguf {
namespace {

// Attention rows that each asking token gives.
int n_scores_of(const std::vector<scored_layer> & scored) {
    int n = 0;
    for (const scored_layer & layer : scored) {
        n += layer.heads.empty() ? 1 : static_cast<int>(layer.heads.size());
    }
    return n;
}

} // namespace

session::session(const model & mdl, const session_params & params, keep_schedule schedule)
    : mdl_(mdl), params_(params), schedule_(std::move(schedule)), compute_(mdl, params.n_threads, cancel_) {
    if (params_.n_ctx == 0) {
        params_.n_ctx = mdl.hp.n_ctx_train;
    }
    if (params_.n_layer == 0) {
        params_.n_layer = mdl.hp.n_layer;
    }
    if (!gives_logits() && (schedule_.entry || !schedule_.points.empty())) {
        fail(status::invalid_argument,
             format("n_layer is %d with a keep schedule, which needs all %d layers", params_.n_layer, mdl.hp.n_layer));
    }
    check_schedule(schedule_, mdl.hp.n_layer, mdl.hp.n_head);
    const cache_devices devices = place_caches(mdl, params_.types, params_.n_ubatch);
    int il_begin = 0;
    for (const pruning_point & p : schedule_.points) {
        segments_.emplace_back(mdl, il_begin, p.il + 1, params_.types, devices);
        windows_.emplace_back(n_scores_of(p.scored), p.query_max);
        il_begin = p.il + 1;
    }
    segments_.emplace_back(mdl, il_begin, params_.n_layer, params_.types, devices);
    note_fallbacks(devices);
}

// Asks the devices for every node of the graphs to come, a full ubatch and a decode step of each segment.
void session::note_fallbacks(const cache_devices & devices) {
    std::set<std::string> notes(devices.notes.begin(), devices.notes.end());
    for (int s = 0; mdl_.devices().size() > 1 && s < n_segments(); ++s) {
        const segment_cache * next = is_last(s) ? nullptr : &segments_[static_cast<size_t>(s) + 1];
        graph_shape shape;
        shape.n_kv = 512;
        shape.want_logits = is_last(s) && gives_logits();
        if (!is_last(s)) {
            shape.n_query = 1;
            shape.scored = schedule_.points[static_cast<size_t>(s)].scored;
        }
        for (const int n_rows : {1, params_.n_ubatch}) {
            shape.n_rows = n_rows;
            for (const std::string & line : compute_.lacking(segment(s).blank_tensors(next, shape.n_kv), shape)) {
                notes.insert(line);
            }
        }
    }
    for (const std::string & line : notes) {
        notes_ += (notes_.empty() ? "" : "; ") + line;
    }
}

void session::check_arguments(const int32_t * tokens, int32_t n, const eval_params & params) const {
    if (n < 1) {
        fail(status::invalid_argument, format("%d tokens to read, expected at least 1", n));
    }
    for (int32_t i = 0; i < n; ++i) {
        if (tokens[i] < 0 || tokens[i] >= mdl_.hp.n_vocab) {
            fail(status::invalid_argument,
                 format("token id at index %d is %d, expected a value in [0, %d]", i, tokens[i], mdl_.hp.n_vocab - 1));
        }
    }
    if (static_cast<int64_t>(n_tokens_) + n > params_.n_ctx) {
        fail(status::context_full, format("%lld tokens do not fit into a context of n_ctx %d (%d held, %d new)",
                                          static_cast<long long>(n_tokens_) + n, params_.n_ctx, n_tokens_, n));
    }
    check_attention(params, n);
    check_protected(params, n);
    if (params.scores == nullptr) {
        return;
    }
    if (!schedule_.entry) {
        fail(status::invalid_argument, "scores are given, but the keep schedule has no pruning point before layer 0 "
                                       "(il -1) that would use them");
    }
    if (params.n_scores != n_tokens_ + n) {
        fail(status::invalid_argument, format("%d scores, expected one for each of the %d tokens in the context",
                                              params.n_scores, n_tokens_ + n));
    }
    for (int32_t i = 0; i < params.n_scores; ++i) {
        if (std::isinf(params.scores[i]) && params.scores[i] < 0) {
            fail(status::invalid_argument, format("the score at position %d is -inf, expected a number, inf for a "
                                                  "token that is read, or NaN for one that stays as it is",
                                                  i));
        }
        if (schedule_.entry->mass < 1.0 && params.scores[i] < 0) {
            fail(status::invalid_argument,
                 format("the score at position %d is %g, expected none below 0 where the point before layer 0 has a "
                        "mass below 1",
                        i, params.scores[i]));
        }
    }
}

void session::check_protected(const eval_params & params, int32_t n) const {
    for (size_t i = 0; i < params.protect.size(); ++i) {
        const int32_t pos = params.protect[i];
        if (pos < (i == 0 ? 0 : params.protect[i - 1] + 1) || pos >= n_tokens_ + n) {
            fail(status::invalid_argument, format("protected position %d at index %zu, expected ascending positions "
                                                  "in [0, %d]",
                                                  pos, i, n_tokens_ + n - 1));
        }
    }
}

void session::eval(const int32_t * tokens, int32_t n, const eval_params & params) {
    check_arguments(tokens, n, params);
    mdl_.links.check();
    cancel_.store(false);

    step st(params);
    st.n_past = n_tokens_;
    st.n_tokens = n_tokens_ + n;
    st.is_dense = st.n_tokens < schedule_.min_prompt || is_unasked(st);
    st.question = question_of(st);
    find_asking(st);
    begin_recording(st);
    st.added.resize(segments_.size());
    tokens_.insert(tokens_.end(), tokens, tokens + n);
    compute_.reset_moved();
    try {
        run(st);
        finish_recording(st);
    } catch (...) {
        roll_back(st);
        throw;
    }
    commit(st);
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
    const auto first = st.rows.begin() + static_cast<std::ptrdiff_t>(begin);
    const ubatch u = {seg.cells, tokens_, st.live, st.query[static_cast<size_t>(s)],
                      std::vector<int32_t>(first, first + static_cast<std::ptrdiff_t>(end - begin))};
    const graph_shape shape = shape_of(st, s, u, end == st.rows.size());
    const segment_cache * next = is_last(s) ? nullptr : &segments_[static_cast<size_t>(s) + 1];
    const uint64_t generation = seg.generation() + (next ? next->generation() : 0); // both only ever rise
    segment_graph & graph = compute_.prepare(s, seg.tensors(next), generation, shape);
    const graph_inputs in = inputs_of(u, shape);
    graph.set_inputs(in);
    compute_.run();
    if (shape.n_query > 0 && is_last(s)) {
        read_attention(st, s, graph, in);
    } else if (shape.n_query > 0) {
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
        shape.want_logits = is_last_ubatch && gives_logits();
        if (const attention_request & wanted = st.params.attention; !wanted.layers.empty()) {
            shape.n_query = count_queries(u);
            shape.form = wanted.by_head    ? score_form::every_head
                         : wanted.by_query ? score_form::by_query
                                           : score_form::sum;
            for (const int il : wanted.layers) {
                shape.scored.push_back({il, {}});
            }
        }
    } else if (st.is_dense || st.prunes(schedule_, s)) { // short contexts ask for the steps to come
        shape.n_query = count_queries(u);
        const pruning_point & point = schedule_.points[static_cast<size_t>(s)];
        shape.scored = point.scored;
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
        compute_.read(t, heads.back().data());
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

void session::read_logits(step & st, const segment_graph & graph) {
    st.logits.resize(static_cast<size_t>(mdl_.hp.n_vocab));
    compute_.read(graph.logits(), st.logits.data());
    if (!std::all_of(st.logits.begin(), st.logits.end(), [](float x) { return std::isfinite(x); })) {
        fail(status::failed, "the model's logits are not finite: its weights hold NaN or Inf, "
                             "or are too large for its type");
    }
}

// Work is counted in rows * layers; what later segments will compute is estimated from their keep.
void session::report_progress(step & st, int s, size_t n_done) const {
    if (cancel_.load()) {
        fail(status::cancelled, "cancelled");
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
        fail(status::cancelled, "cancelled by the progress callback");
    }
}

void session::commit(step & st) {
    for (size_t s = 0; s < windows_.size(); ++s) {
        windows_[s].keep_only(st.query[s]);
    }
    moved_ = compute_.moved();
    saved_ = saved_after(st);
    n_new_ = st.n_tokens - st.n_past;
    n_tokens_ = st.n_tokens;
    n_revived_ = static_cast<int32_t>(st.revived.size());
    question_ = st.question;
    entered_ = std::move(st.entered);
    protected_ = std::move(st.kept_out);
    logits_ = std::move(st.logits);
    reports_ = std::move(st.reports);
}

void session::roll_back(const step & st) {
    const bool lost = !mdl_.links.lost().empty(); // no step will come, and ggml must not be asked for that memory
    for (size_t s = 0; s < segments_.size(); ++s) {
        if (!lost) {
            segments_[s].erase(st.added[s]);
        }
    }
    for (score_window & window : windows_) {
        window.trim(st.n_past);
    }
    tokens_.resize(static_cast<size_t>(st.n_past));
}

void session::reset() {
    mdl_.links.check();
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
    protected_.clear();
    question_ = {};
    logits_.clear();
    reports_.clear();
    moved_ = {};
    n_new_ = 0;
    n_revived_ = 0;
}

void session::trim(int32_t n_tokens) {
    if (n_tokens < 0 || n_tokens > n_tokens_) {
        fail(status::invalid_argument, format("trim to %d tokens, expected a value in [0, %d]", n_tokens, n_tokens_));
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
    saved_ = std::max(schedule_.max_revive, 0); // as after a prompt: the same prompt again is to give the same
    tokens_.resize(static_cast<size_t>(n_tokens));
    entered_.erase(std::lower_bound(entered_.begin(), entered_.end(), n_tokens), entered_.end());
    protected_.erase(std::lower_bound(protected_.begin(), protected_.end(), n_tokens), protected_.end());
    logits_.clear();
    reports_.clear();
}

// A token that was read beside a gap knows nothing of what stood there: once the gap is read, it is read again.
void session::forget(const int32_t * positions, int32_t n) {
    if (!schedule_.entry) {
        fail(status::invalid_argument, "tokens can be forgotten only where they can wait before layer 0 (il -1)");
    }
    for (int32_t i = 0; i < n; ++i) {
        if (positions[i] < 0 || positions[i] >= n_tokens_ - 1) {
            fail(status::invalid_argument,
                 format("position %d is to be forgotten, expected a value in [0, %d]", positions[i], n_tokens_ - 2));
        }
    }
    mdl_.links.check();
    for (segment_cache & seg : segments_) {
        seg.erase({positions, positions + n});
    }
    const std::set<int32_t> gone(positions, positions + n);
    const auto is_gone = [&](int32_t pos) { return gone.count(pos) > 0; };
    entered_.erase(std::remove_if(entered_.begin(), entered_.end(), is_gone), entered_.end());
}

} // namespace lazygguf
