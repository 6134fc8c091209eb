// recording.cpp: what the asking rows of a dense session look at, layer by layer and head by head.
//
// Owns the form in which attention is handed out; the step itself does not know it. Only the asking rows' attention
// leaves a graph.

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "run/step.h"

namespace lazygguf {

// `n` tokens are about to be read.
void session::check_attention(const eval_params & params, int32_t n) const {
    const attention_request & wanted = params.attention;
    if (wanted.layers.empty()) {
        return;
    }
    if (schedule_.entry || !schedule_.points.empty()) {
        fail(status::invalid_argument, "attention is recorded by sessions without a keep schedule only");
    }
    int before = -1;
    for (const int il : wanted.layers) {
        if (il <= before || il >= params_.n_layer) {
            fail(status::invalid_argument, format("attention of layer %d after %d is wanted, expected ascending "
                                                  "layers in [0, %d]",
                                                  il, before, params_.n_layer - 1));
        }
        before = il;
    }
    const int32_t begin = params.query_begin;
    const int32_t end = params.query_end;
    if (begin < n_tokens_ || end > n_tokens_ + n || begin >= end || end - begin > MAX_QUERY) {
        fail(status::invalid_argument, format("the query span is [%d, %d), expected 1 to %d of the new tokens, "
                                              "[%d, %d)",
                                              begin, end, MAX_QUERY, n_tokens_, n_tokens_ + n));
    }
    const int64_t n_rows =
        (wanted.by_query ? end - begin : 1) * static_cast<int64_t>(wanted.by_head ? mdl_.hp.n_head : 1);
    const int64_t n_out = static_cast<int64_t>(wanted.layers.size()) * n_rows * (n_tokens_ + n);
    if (wanted.n_out != n_out) {
        fail(status::invalid_argument, format("room for %lld numbers of attention, expected %lld",
                                              static_cast<long long>(wanted.n_out), static_cast<long long>(n_out)));
    }
}

void session::begin_recording(step & st) const {
    const attention_request & wanted = st.params.attention;
    if (wanted.layers.empty()) {
        return;
    }
    for (int32_t pos = st.params.query_begin; pos < st.params.query_end; ++pos) {
        st.query.back().push_back(pos);
    }
    st.attention.resize(static_cast<size_t>(wanted.n_out));
}

// Adds a ubatch's share, rows of the cache turned into positions.
void session::read_attention(step & st, int s, const segment_graph & graph, const graph_inputs & in) {
    const auto n_kv = static_cast<size_t>(graph.shape().n_kv);
    const auto n_tokens = static_cast<size_t>(st.n_tokens);
    const auto n_query = static_cast<size_t>(st.params.query_end - st.params.query_begin);
    const bool by_query = st.params.attention.by_query;
    const size_t n_head = st.params.attention.by_head ? static_cast<size_t>(mdl_.hp.n_head) : 1;
    const size_t n_here = by_query ? in.query_rows.size() : 1;                // asking rows in this ubatch
    const int32_t first = in.pos[static_cast<size_t>(in.query_rows.front())]; // they follow each other
    const size_t q_begin = by_query ? static_cast<size_t>(first - st.params.query_begin) : 0;
    const cell_map & cells = segments_[static_cast<size_t>(s)].cells;
    std::vector<float> rows(n_kv * n_here * n_head); // (n_head, n_here, n_kv)
    for (size_t layer = 0; layer < graph.scores().size(); ++layer) {
        compute_.read(graph.scores()[layer], rows.data());
        for (size_t i = 0; i < n_here * n_head; ++i) {
            const size_t h = i / n_here;
            const size_t q = q_begin + i % n_here;
            const size_t row = by_query ? (layer * n_query + q) * n_head + h : layer;
            float * out = st.attention.data() + row * n_tokens;
            for (int32_t pos = 0; pos <= in.pos.back(); ++pos) {
                out[pos] += rows[i * n_kv + static_cast<size_t>(cells.row_of(pos))];
            }
        }
    }
}

// The step went well: hands the record out.
void session::finish_recording(const step & st) const {
    const attention_request & wanted = st.params.attention;
    if (wanted.layers.empty()) {
        return;
    }
    if (!std::all_of(st.attention.begin(), st.attention.end(), [](float x) { return std::isfinite(x); })) {
        fail(status::failed, "the model's attention is not finite: its weights hold NaN or Inf, "
                             "or are too large for its type");
    }
    const int32_t n_looks = (st.params.query_end - st.params.query_begin) * mdl_.hp.n_head;
    const float scale = wanted.by_query ? 1.0F : 1.0F / static_cast<float>(n_looks);
    std::transform(st.attention.begin(), st.attention.end(), wanted.out, [scale](float x) { return x * scale; });
}

} // namespace lazygguf
