// session.cpp: LazyLLM (arXiv 2407.14057) on one cell map per segment.

#include "run/session.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "base/error.h"
#include "run/progress.h"
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

// Are all layers, their caches and the output on the same device?
bool are_one_device(const model & mdl, const cache_devices & devices) {
    const auto is_elsewhere = [&](ggml_backend_dev_t dev) { return dev != mdl.output_dev; };
    return std::none_of(mdl.layer_devs.begin(), mdl.layer_devs.end(), is_elsewhere) &&
           std::none_of(devices.kv.begin(), devices.kv.end(), is_elsewhere) &&
           std::none_of(devices.aux.begin(), devices.aux.end(), is_elsewhere);
}

// What lies before its window is nothing to a layer: by its scores all of that would be dropped.
void check_windows(const keep_schedule & schedule, const hparams & hp, int n_ctx) {
    const auto has_window = [&](int il) { return hp.layer(il).n_window > 0 && hp.layer(il).n_window < n_ctx; };
    for (const pruning_point & p : schedule.points) {
        for (const scored_layer & scored : p.scored) {
            if (!has_window(scored.il)) {
                continue;
            }
            std::string others;
            for (int il = 0; il + 1 < hp.n_layer; ++il) {
                others += has_window(il) ? "" : format(others.empty() ? "%d" : ", %d", il);
            }
            fail(
                status::invalid_argument,
                format("keep schedule: layer %d sees %d tokens at a time, so it cannot score the others; prune after a "
                       "layer that sees all: %s",
                       scored.il, hp.layer(scored.il).n_window, others.empty() ? "there is none" : others.c_str()));
        }
    }
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
    if (!gives_logits() && !schedule_.is_dense()) {
        fail(status::invalid_argument,
             format("n_layer is %d with a keep schedule, which needs all %d layers", params_.n_layer, mdl.hp.n_layer));
    }
    check_schedule(schedule_, mdl.hp.n_layer, mdl.hp.n_head);
    check_windows(schedule_, mdl.hp, params_.n_ctx);
    const cache_devices devices = place_caches(mdl, params_.types, params_.n_ubatch);
    int il_begin = 0;
    for (const pruning_point & p : schedule_.points) {
        segments_.emplace_back(mdl, il_begin, p.il + 1, params_.types, devices);
        windows_.emplace_back(n_scores_of(p.scored), p.query_max);
        il_begin = p.il + 1;
    }
    segments_.emplace_back(mdl, il_begin, params_.n_layer, params_.types, devices);
    is_on_one_device_ = are_one_device(mdl, devices);
    note_fallbacks(devices);
}

// Asks the devices for every node of the graphs to come, a full ubatch and a decode step of each segment.
void session::note_fallbacks(const cache_devices & devices) {
    std::set<std::string> notes(devices.notes.begin(), devices.notes.end());
    for (size_t s = 0; mdl_.devices().size() > 1 && s < segments_.size(); ++s) {
        graph_shape shape;
        shape.n_kv = 512;
        shape.want_logits = is_last(s) && gives_logits();
        if (!is_last(s)) {
            shape.n_query = 1;
            shape.scored = schedule_.points[s].scored;
        }
        for (const int n_rows : {1, params_.n_ubatch}) {
            shape.n_rows = n_rows;
            for (const std::string & line : compute_.lacking(segments_[s].blank_tensors(after(s), shape.n_kv), shape)) {
                notes.insert(line);
            }
        }
    }
    for (const std::string & line : notes) {
        notes_ += (notes_.empty() ? "" : "; ") + line;
    }
}

void session::eval(const int32_t * tokens, int32_t n, const eval_params & params) {
    check_eval(tokens, n, params,
               {schedule_, n_tokens_, params_.n_ctx, mdl_.hp.n_vocab, mdl_.hp.n_head, params_.n_layer});
    mdl_.links.check();
    cancel_.store(false);
    compute_.reset_work();

    const step_extent extent = {n_tokens_, n_tokens_ + n}; // who asks, and what is never pruned
    step st(params, plan_step(schedule_, extent, params.hints, memory_, windows_),
            lazygguf::is_late(schedule_, extent, params.hints, memory_), segments_.size(), mdl_.hp.n_head);
    tokens_.insert(tokens_.end(), tokens, tokens + n);
    try { // what enters before layer 0
        st.segments[0] =
            choose_entering(schedule_, st.plan, params.hints.scores, memory_.entered, segments_.front().cells);
        if (st.is_late) {
            run_late(st);
        } else {
            run_in_turn(st);
        }
        st.n_saved = saved_after(schedule_, extent, memory_.n_saved, st.segments.back().revived.size());
        st.next = st.is_late ? choose_next(st) : same_again(extent, st.segments);
        st.record.hand_out();
    } catch (...) {
        roll_back(st);
        throw;
    }
    commit(st);
}

// Runs one segment after the other; the scores of each choose for the next.
void session::run_in_turn(step & st) {
    for (size_t s = 0; s < segments_.size(); ++s) {
        run_segment(st, s);
        if (!is_last(s)) { // what lives on, and what is revived
            std::vector<float> & scores = st.result.segments[s].scores;
            scores = score(st, s);
            st.segments[s + 1] =
                choose_going_on(schedule_, st.plan, {s, scores, segments_[s + 1].cells}, st.segments[s]);
        }
    }
}

// Runs segments that the step before chose for: as one graph, unless their rows are too many for a ubatch or they lie
// on several devices.
void session::run_late(step & st) {
    for (size_t s = 1; s < segments_.size(); ++s) {
        st.segments[s] = choose_late(schedule_, st.plan, memory_.next.segments[s], segments_[s].cells);
    }
    const auto is_large = [&](const choice & c) { return c.rows.size() > static_cast<size_t>(params_.n_ubatch); };
    if (is_on_one_device_ && std::none_of(st.segments.begin(), st.segments.end(), is_large)) {
        run_as_one(st);
    } else {
        for (size_t s = 0; s < segments_.size(); ++s) {
            run_segment(st, s);
        }
    }
}

// What the scores of a late step choose for the next one.
next_step session::choose_next(step & st) const {
    const step_plan plan = plan_next(schedule_, st.plan, st.n_saved);
    next_step next = {st.plan.extent.n_tokens, std::vector<choice>(segments_.size())};
    for (size_t s = 0; !is_last(s); ++s) {
        std::vector<float> & scores = st.result.segments[s].scores;
        scores = score(st, s);
        next.segments[s + 1] = lazygguf::choose_next(schedule_, plan, {s, scores, segments_[s + 1].cells},
                                                     {st.segments[s].live, {}, next.segments[s].revived});
    }
    return next;
}

// Makes room for the rows of a segment and for what it leaves to the next one.
void session::reserve(const step & st, size_t s) {
    const auto n_rows = static_cast<int64_t>(st.segments[s].rows.size());
    segments_[s].reserve_rows(segments_[s].cells.n_used() + n_rows, params_.n_ctx);
    if (!is_last(s)) {
        segments_[s + 1].reserve_aux(st.plan.extent.n_tokens, params_.n_ctx);
    }
}

// Runs the segment's layers over its rows, in ubatches and in position order.
void session::run_segment(step & st, size_t s) {
    reserve(st, s);
    const size_t n_rows = st.segments[s].rows.size();
    const auto n_ubatch = static_cast<size_t>(params_.n_ubatch);
    for (size_t begin = 0; begin < n_rows; begin += n_ubatch) {
        run_ubatch(st, s, begin, std::min(begin + n_ubatch, n_rows));
    }
}

// Gives rows [begin, end) of those that the segment computes a place in its cache.
ubatch session::take_rows(step & st, size_t s, size_t begin, size_t end) {
    segment_cache & seg = segments_[s];
    const auto first = st.segments[s].rows.begin();
    const std::vector<int32_t> rows(first + static_cast<std::ptrdiff_t>(begin),
                                    first + static_cast<std::ptrdiff_t>(end));
    for (const int32_t pos : rows) {
        st.added[s].push_back(pos);
        seg.cells.add(pos);
    }
    return {seg.cells, tokens_, st.segments[s].live, st.query(s), rows};
}

void session::run_ubatch(step & st, size_t s, size_t begin, size_t end) {
    segment_cache & seg = segments_[s];
    const ubatch u = take_rows(st, s, begin, end);
    const graph_shape shape = shape_of(st, s, u, end == st.segments[s].rows.size());
    const segment_cache * next = after(s);
    // neither counter ever falls, so the sum identifies the state
    const uint64_t generation = seg.generation() + (next ? next->generation() : 0);
    const step_graph & graph = compute_.prepare(static_cast<int>(s), {{seg.tensors(next), shape}}, generation);
    const graph_inputs in = inputs_of(u, shape);
    graph.part(0).set_inputs(in);
    // a record is large and read piece by piece
    compute_.run(st.record.query().empty() ? graph.outputs() : std::vector<ggml_tensor *>());
    read_outputs(st, s, graph.part(0), in);
    report_progress(st, s, end);
}

// Runs all segments as one graph, over rows that are few enough for one ubatch each.
void session::run_as_one(step & st) {
    std::vector<graph_part> parts;
    std::vector<graph_inputs> inputs;
    uint64_t generation = 0; // of all: see run_ubatch
    for (size_t s = 0; s < segments_.size(); ++s) {
        reserve(st, s);
    }
    for (size_t s = 0; s < segments_.size(); ++s) {
        const size_t n_rows = st.segments[s].rows.size();
        const ubatch u = take_rows(st, s, 0, n_rows);
        const graph_shape shape = shape_of(st, s, u, /*is_last_ubatch=*/true);
        parts.push_back({segments_[s].tensors(after(s)), shape});
        inputs.push_back(inputs_of(u, shape));
        generation += segments_[s].generation();
    }
    const step_graph & graph = compute_.prepare(0, parts, generation);
    for (size_t s = 0; s < segments_.size(); ++s) {
        graph.part(s).set_inputs(inputs[s]);
    }
    compute_.run(graph.outputs());
    for (size_t s = 0; s < segments_.size(); ++s) {
        read_outputs(st, s, graph.part(s), inputs[s]);
    }
    report_progress(st, segments_.size() - 1, st.segments.back().rows.size());
}

// Takes what a segment gave: scores or attention, and logits.
void session::read_outputs(step & st, size_t s, const segment_graph & graph, const graph_inputs & in) {
    const graph_shape & shape = graph.shape();
    if (shape.n_query > 0 && is_last(s)) {
        st.record.add(compute_, graph, in);
    } else if (shape.n_query > 0) {
        read_scores(s, graph, in);
    }
    if (shape.want_logits) {
        read_logits(st, graph);
    }
}

graph_shape session::shape_of(const step & st, size_t s, const ubatch & u, bool is_last_ubatch) const {
    graph_shape shape;
    shape.n_rows = static_cast<int>(u.pos.size());
    shape.n_kv = segments_[s].n_kv_padded();
    if (is_last(s)) {
        shape.want_logits = is_last_ubatch && gives_logits();
        st.record.ask(shape, count_queries(u));
        return shape;
    }
    const pruning_point & point = schedule_.points[s];
    // dense steps record scores too: later steps may prune with them
    if (st.plan.is_dense || may_prune(point, st.plan, st.segments[s].live.size())) {
        shape.n_query = count_queries(u);
        shape.scored = point.scored;
    }
    return shape;
}

// Remembers what each asking row of the ubatch looked at, by position.
void session::read_scores(size_t s, const segment_graph & graph, const graph_inputs & in) {
    const auto n_kv = static_cast<size_t>(graph.shape().n_kv);
    std::vector<std::vector<float>> heads; // (n_kv * n_query) each
    for (const score_output & output : graph.scores()) {
        heads.emplace_back(n_kv * in.query_rows.size());
        compute_.read(output.t, heads.back().data());
    }
    for (size_t q = 0; q < in.query_rows.size(); ++q) {
        const int32_t pos = in.pos[static_cast<size_t>(in.query_rows[q])];
        std::vector<std::vector<float>> by_head;
        for (size_t h = 0; h < heads.size(); ++h) {
            std::vector<float> by_pos(static_cast<size_t>(pos) + 1, 0.0F);
            for (size_t i = 0; i < in.live_pos.size() && in.live_pos[i] <= pos; ++i) {
                const size_t column = in.column_of(i, graph.scores()[h]);
                by_pos[static_cast<size_t>(in.live_pos[i])] = heads[h][q * n_kv + column];
            }
            by_head.push_back(std::move(by_pos));
        }
        windows_[s].add(pos, std::move(by_head));
    }
}

void session::read_logits(step & st, const segment_graph & graph) {
    std::vector<float> & logits = st.result.logits;
    logits.resize(static_cast<size_t>(mdl_.hp.n_vocab));
    compute_.read(graph.logits(), logits.data());
    if (!std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); })) {
        fail(status::failed, "the model's logits are not finite: its weights hold NaN or Inf, "
                             "or are too large for its type");
    }
}

// What later segments will compute is estimated from their keep.
void session::report_progress(const step & st, size_t s, size_t n_done) const {
    if (cancel_.load()) {
        fail(status::cancelled, "cancelled");
    }
    if (!st.params.progress) {
        return;
    }
    const int32_t n_new = st.plan.extent.n_tokens - st.plan.extent.n_past;
    std::vector<segment_work> work;
    for (size_t i = 0; i < segments_.size(); ++i) {
        const int n_layers = segments_[i].n_layers();
        const auto n_ran = static_cast<double>(st.added[i].size());
        if (i < s) {
            work.push_back({n_ran, n_ran, n_layers});
        } else if (i == s) {
            work.push_back({static_cast<double>(st.segments[s].rows.size()), static_cast<double>(n_done), n_layers});
        } else {
            work.push_back({n_new * (st.plan.is_dense ? 1.0 : schedule_.points[i - 1].keep), 0.0, n_layers});
        }
    }
    if (!st.params.progress(tokens_done(work, n_new), n_new)) {
        fail(status::cancelled, "cancelled by the progress callback");
    }
}

// The scores at the end of the segment, by position, NaN where not live; none where its point does not prune.
std::vector<float> session::score(const step & st, size_t s) const {
    if (!may_prune(schedule_.points[s], st.plan, st.segments[s].live.size())) {
        return {};
    }
    const std::vector<float> all = windows_[s].combine(st.plan.query[s], st.plan.extent.n_tokens);
    std::vector<float> scores(all.size(), std::numeric_limits<float>::quiet_NaN());
    for (const int32_t pos : st.segments[s].live) {
        const float value = all[static_cast<size_t>(pos)];
        if (!std::isfinite(value)) {
            fail(status::failed, "the model's attention is not finite: its weights hold NaN or Inf, "
                                 "or are too large for its type");
        }
        scores[static_cast<size_t>(pos)] = value;
    }
    return scores;
}

void session::commit(step & st) {
    for (size_t i = 0; i < windows_.size(); ++i) {
        windows_[i].keep_only(st.plan.query[i]);
    }
    const step_extent & extent = st.plan.extent;
    if (!extent.is_decode()) {
        mark_ = {};
    }
    n_tokens_ = extent.n_tokens;
    memory_.n_saved = st.n_saved;
    memory_.question = st.plan.question;
    memory_.entered = st.segments.front().live;
    memory_.protect = std::move(st.plan.protect);
    memory_.next = std::move(st.next);
    for (size_t s = 0; s < segments_.size(); ++s) {
        segment_report & report = st.result.segments[s];
        report.live = std::move(st.segments[s].live);
        report.n_computed = static_cast<int32_t>(st.segments[s].rows.size());
    }
    result_ = std::move(st.result);
    result_.n_new = extent.n_tokens - extent.n_past;
    result_.n_revived = static_cast<int32_t>(st.segments.back().revived.size());
    result_.work = compute_.work();
}

} // namespace lazygguf
