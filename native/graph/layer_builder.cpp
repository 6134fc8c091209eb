// layer_builder.cpp: the operations of a layer as ggml nodes.

#include "graph/layer_builder.h"

#include <algorithm>

#include "graph/attention_scores.h"
#include "graph/masks.h"
#include "kernels/attention.h"

namespace lazygguf {
namespace {

// ggml's CPU flash attention sums in F32 only from 64 query rows on. The last layer needs one row, but passes it 64 to
// get that precision.
constexpr int64_t PRECISE_ROWS = 64;

// Applies an operation to all rows, and to those that are wanted where they are others.
template <typename F> hidden map(const hidden & x, F && op) {
    ggml_tensor * all = op(x.all);
    return {all, x.wanted == x.all ? all : op(x.wanted)};
}

} // namespace

layer_builder::layer_builder(graph_state & g, int il)
    : g_(g), il_(il), params_(g.mdl.hp.layer(il)), weights_(g.mdl.layer(il)), kv_(g.seg.kv_of(il)),
      dev_(g.mdl.layer_devs[static_cast<size_t>(il)]), is_last_(g.seg.is_last_layer(il)) {}

hidden layer_builder::input(ggml_tensor * inp) const {
    return {inp, is_last_ ? last_rows(ctx(), inp, g_.has_our_attention(il_) ? 1 : PRECISE_ROWS) : inp};
}

hidden layer_builder::norm(const hidden & x, ggml_tensor * weight) const {
    return map(x, [&](ggml_tensor * t) { return ggml_mul(ctx(), ggml_rms_norm(ctx(), t, params_.rms_eps), weight); });
}

ggml_tensor * layer_builder::multiply(const linear_weights & w, ggml_tensor * x) {
    ggml_tensor * out = g_.multiply(w.weight, x);
    return w.bias != nullptr ? ggml_add(ctx(), out, w.bias) : out;
}

hidden layer_builder::linear(const linear_weights & w, const hidden & x) {
    return map(x, [&](ggml_tensor * t) { return multiply(w, t); });
}

hidden layer_builder::split(const hidden & x) const {
    const int64_t d = g_.mdl.hp.n_embd_head;
    return map(x, [&](ggml_tensor * t) { return ggml_reshape_3d(ctx(), t, d, t->ne[0] / d, t->ne[1]); });
}

hidden layer_builder::scale(const hidden & x, float factor) const {
    return factor == 1.0F ? x : map(x, [&](ggml_tensor * t) { return ggml_scale(ctx(), t, factor); });
}

hidden layer_builder::rope(const hidden & x) const {
    const rope_params & r = params_.rope;
    if (r.n_rot == 0) {
        return x;
    }
    return map(x, [&](ggml_tensor * t) {
        const int64_t n = t->ne[2];
        ggml_tensor * pos = g_.pos; // of the last n rows
        if (n < pos->ne[0]) {
            pos = ggml_view_1d(ctx(), pos, n, static_cast<size_t>(pos->ne[0] - n) * pos->nb[0]);
        }
        return ggml_rope_ext(ctx(), t, pos, weights_.rope_freqs, r.n_rot, r.mode, r.n_ctx_orig, r.freq_base,
                             r.freq_scale, r.ext_factor, r.attn_factor, r.beta_fast, r.beta_slow);
    });
}

// Expanded at once, so that the writes come before every read of the cache.
void layer_builder::write(ggml_tensor * k, ggml_tensor * v) {
    const int64_t n_embd_kv = g_.mdl.hp.n_embd_kv();
    k = ggml_reshape_2d(ctx(), k, n_embd_kv, g_.shape.n_rows);
    v = ggml_reshape_2d(ctx(), v, n_embd_kv, g_.shape.n_rows);
    g_.expand(k, dev_);
    g_.expand(v, dev_);
    g_.expand(ggml_set_rows(ctx(), kv_.k, k, g_.kv_rows), kv_.dev);
    g_.expand(ggml_set_rows(ctx(), kv_.v, v, g_.kv_rows), kv_.dev);
}

// q F32 [n_embd_head, n_head, n] -> F32 [n_embd_q, n]
ggml_tensor * layer_builder::read(ggml_tensor * q) {
    const hparams & hp = g_.mdl.hp;
    const int64_t n = q->ne[2];
    ggml_tensor * k = heads_of(g_, kv_.k);
    ggml_tensor * v = heads_of(g_, kv_.v);
    if (g_.has_our_attention(il_)) {
        kv_entries entries = entries_of(g_, il_);
        entries.visible = last_rows(ctx(), entries.visible, n);
        attention_settings & settings = g_.attention.emplace_back();
        settings.softcap = params_.attn_softcap;
        return ggml_reshape_2d(ctx(), build_attention(ctx(), q, k, v, entries, settings), hp.n_embd_q(), n);
    }
    ggml_tensor * mask = last_rows(ctx(), mask_of(g_, il_), n);
    ggml_tensor * out = ggml_flash_attn_ext(ctx(), ggml_permute(ctx(), q, 0, 2, 1, 3), k, v, mask, hp.head_scale(),
                                            /*max_bias=*/0.0F, params_.attn_softcap);
    ggml_prec_set_acc(out, GGML_PREC_F32);
    return ggml_reshape_2d(ctx(), out, hp.n_embd_q(), n);
}

hidden layer_builder::attend(const hidden & q, const hidden & k, const hidden & v) {
    write(k.all, v.all);
    // every kernel multiplies with 1 / sqrt(n_embd_head)
    const float usual = g_.mdl.hp.head_scale();
    const hidden scaled = params_.attn_scale == usual ? q : map(q, [&](ggml_tensor * t) {
        return ggml_scale(ctx(), t, params_.attn_scale / usual);
    });
    if (const scored_layer * scored = g_.shape.scored_at(il_)) {
        g_.expand(scaled.all, dev_);
        build_scores(g_, scaled.all, il_, *scored);
    }
    if (is_last_ && !g_.shape.want_logits) {
        // Without logits only this layer's K/V rows are needed; the nodes after this are built but never run.
        ggml_tensor * unread = ggml_reshape_2d(ctx(), q.all, g_.mdl.hp.n_embd_q(), g_.shape.n_rows);
        return {unread, unread};
    }
    g_.expand(scaled.wanted, dev_);
    ggml_tensor * out = read(scaled.wanted);
    g_.expand(out, kv_.dev);
    if (is_last_) {
        out = last_rows(ctx(), out, 1);
    }
    return {out, out};
}

hidden layer_builder::add(const hidden & a, const hidden & b) const {
    const int64_t n = std::min(a.wanted->ne[1], b.wanted->ne[1]);
    ggml_tensor * wanted = ggml_add(ctx(), last_rows(ctx(), a.wanted, n), last_rows(ctx(), b.wanted, n));
    return {wanted, wanted};
}

hidden layer_builder::gated(const hidden & x, ggml_glu_op activation) {
    const hidden gate = linear(weights_.ffn_gate, x);
    const hidden up = linear(weights_.ffn_up, x);
    ggml_tensor * all = ggml_glu_split(ctx(), gate.all, up.all, activation);
    const bool same = x.wanted == x.all;
    return linear(weights_.ffn_down, {all, same ? all : ggml_glu_split(ctx(), gate.wanted, up.wanted, activation)});
}

} // namespace lazygguf
