// segment_graph.cpp: from rows to rows, one segment of layers at a time.

#include "graph/segment_graph.h"

#include <algorithm>
#include <utility>

#include "graph/layer_builder.h"
#include "graph/masks.h"
#include "graph/set_input.h"
#include "model/architecture.h"

namespace lazygguf {
const scored_layer * graph_shape::scored_at(int il) const {
    const auto it = std::find_if(scored.begin(), scored.end(), [il](const scored_layer & s) { return s.il == il; });
    return n_query > 0 && it != scored.end() ? &*it : nullptr;
}

segment_graph::segment_graph(const model & mdl, segment_tensors seg, const graph_shape & shape, graph_nodes & nodes)
    : g_(mdl, std::move(seg), shape, nodes) {
    build_inputs();
    build_masks(g_);
    build();
}

void segment_graph::build_inputs() {
    const graph_shape & shape = g_.shape;
    if (g_.seg.aux_in == nullptr) {
        g_.tokens = g_.new_input(GGML_TYPE_I32, shape.n_rows, 1, "tokens");
    }
    g_.pos = g_.new_input(GGML_TYPE_I32, shape.n_rows, 1, "pos");
    g_.kv_rows = g_.new_input(GGML_TYPE_I64, shape.n_rows, 1, "kv_rows");
    if (g_.seg.aux_out != nullptr) {
        g_.aux_rows = g_.new_input(GGML_TYPE_I64, shape.n_rows, 1, "aux_rows");
    }
    if (shape.n_query > 0 && shape.n_query < shape.n_rows) {
        g_.query_rows = g_.new_input(GGML_TYPE_I32, shape.n_query, 1, "query_rows");
    }
}

void segment_graph::build() {
    const segment_tensors & seg = g_.seg;
    ggml_context * ctx = g_.ctx.get();
    ggml_tensor * cur = seg.aux_in == nullptr ? build_embeddings() : ggml_get_rows(ctx, seg.aux_in, g_.pos);
    g_.expand(cur, seg.aux_in_dev);
    const bool is_read = seg.aux_out != nullptr || g_.shape.want_logits; // what the last layer gives
    for (int il = seg.il_begin; il < seg.il_end; ++il) {
        layer_builder layer(g_, il);
        cur = g_.mdl.hp.arch->layer(layer, layer.input(cur)).wanted;
        if (is_read || il + 1 < seg.il_end) {
            g_.expand(cur, g_.mdl.layer_devs[static_cast<size_t>(il)]);
        }
    }
    if (seg.aux_out != nullptr) {
        g_.aux_out = ggml_set_rows(ctx, seg.aux_out, cur, g_.aux_rows);
        g_.expand(g_.aux_out, seg.aux_out_dev);
    } else if (is_read) {
        build_logits(cur);
    }
}

ggml_tensor * segment_graph::build_embeddings() const {
    const float scale = g_.mdl.hp.embd_scale;
    ggml_tensor * rows = ggml_get_rows(g_.ctx.get(), g_.mdl.weights.tok_embd, g_.tokens);
    return scale == 1.0F ? rows : ggml_scale(g_.ctx.get(), rows, scale);
}

void segment_graph::build_logits(ggml_tensor * cur) {
    ggml_context * ctx = g_.ctx.get();
    const hparams & hp = g_.mdl.hp;
    const model_weights & w = g_.mdl.weights;
    cur = ggml_mul(ctx, ggml_rms_norm(ctx, cur, hp.layers.back().rms_eps), w.output_norm);
    g_.logits = g_.multiply(w.output, cur);
    if (hp.logit_scale != 1.0F) {
        g_.logits = ggml_scale(ctx, g_.logits, hp.logit_scale);
    }
    if (hp.logit_softcap > 0.0F) {
        g_.logits = ggml_tanh(ctx, ggml_scale(ctx, g_.logits, 1.0F / hp.logit_softcap));
        g_.logits = ggml_scale(ctx, g_.logits, hp.logit_softcap);
    }
    ggml_set_name(g_.logits, "logits");
    ggml_set_output(g_.logits);
    g_.expand(g_.logits, g_.mdl.output_dev);
}

void segment_graph::set_inputs(const graph_inputs & in) const {
    set_input(g_.tokens, in.tokens);
    set_input(g_.pos, in.pos);
    set_input(g_.kv_rows, in.kv_rows);
    set_input(g_.query_rows, in.query_rows);
    set_masks(g_, in);
    if (g_.aux_rows != nullptr) {
        set_input(g_.aux_rows, std::vector<int64_t>(in.pos.begin(), in.pos.end()));
    }
}

} // namespace lazygguf
