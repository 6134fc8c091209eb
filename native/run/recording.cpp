// recording.cpp: attention as it leaves the graphs, gathered by position.

#include "run/recording.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace lazygguf {

recording::recording(const attention_request & wanted, position_span question, int32_t n_tokens, int n_head)
    : wanted_(wanted), n_tokens_(static_cast<size_t>(n_tokens)), n_head_(static_cast<size_t>(n_head)) {
    if (!wanted.layers.empty()) {
        query_ = positions_of(question);
        record_.resize(static_cast<size_t>(wanted.n_out));
    }
}

void recording::ask(graph_shape & shape, int n_query) const {
    if (wanted_.layers.empty()) {
        return;
    }
    shape.n_query = n_query;
    shape.form = wanted_.by_head ? score_form::every_head : wanted_.by_query ? score_form::by_query : score_form::sum;
    for (const int il : wanted_.layers) {
        shape.scored.push_back({il, {}});
    }
}

void recording::add(compute & done, const segment_graph & graph, const graph_inputs & in) {
    const auto n_kv = static_cast<size_t>(graph.shape().n_kv);
    const size_t n_head = wanted_.by_head ? n_head_ : 1;
    const size_t n_asking = in.query_rows.size();                             // in this ubatch
    const int32_t first = in.pos[static_cast<size_t>(in.query_rows.front())]; // they follow each other
    const size_t q_begin = wanted_.by_query ? static_cast<size_t>(first - query_.front()) : 0;
    std::vector<float> rows(n_kv * n_asking * n_head); // (n_head, n_here, n_kv)
    for (size_t layer = 0; layer < graph.scores().size(); ++layer) {
        const score_output & output = graph.scores()[layer];
        done.read(output.t, rows.data());
        const size_t n_here = wanted_.by_query || output.by_entry ? n_asking : 1; // a sum over them comes as one
        for (size_t i = 0; i < n_here * n_head; ++i) {
            const size_t h = i / n_here;
            const size_t q = q_begin + i % n_here;
            const size_t row = wanted_.by_query ? (layer * query_.size() + q) * n_head + h : layer;
            float * out = record_.data() + row * n_tokens_;
            for (size_t p = 0; p < in.live_pos.size(); ++p) {
                out[in.live_pos[p]] += rows[i * n_kv + in.column_of(p, output)];
            }
        }
    }
}

void recording::hand_out() const {
    if (wanted_.layers.empty()) {
        return;
    }
    if (!std::all_of(record_.begin(), record_.end(), [](float x) { return std::isfinite(x); })) {
        fail(status::failed, "the model's attention is not finite: its weights hold NaN or Inf, "
                             "or are too large for its type");
    }
    const size_t n_looks = query_.size() * n_head_;
    const float scale = wanted_.by_query ? 1.0F : 1.0F / static_cast<float>(n_looks);
    std::transform(record_.begin(), record_.end(), wanted_.out, [scale](float x) { return x * scale; });
}

} // namespace lazygguf
