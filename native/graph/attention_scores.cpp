// attention_scores.cpp: softmax of Q * K for the asking rows alone.

#include "graph/attention_scores.h"

#include "graph/masks.h"
#include "kernels/attention.h"

namespace lazygguf {
namespace {

// The asking rows of a layer and what they may look at.
struct asking {
    ggml_tensor * q;    // F32 [n_embd_head, n_head, n_query]
    ggml_tensor * k;    // [n_embd_head, n_kv, n_head_kv]
    ggml_tensor * mask; // of ggml's attention; null where it is ours
    kv_entries entries; // of ours
};

// Of the rows of an input, those that ask.
ggml_tensor * of_queries(const graph_state & g, ggml_tensor * t) {
    return g.query_rows != nullptr ? ggml_get_rows(g.ctx.get(), t, g.query_rows) : t;
}

asking asking_rows(graph_state & g, ggml_tensor * q, int il) {
    const hparams & hp = g.mdl.hp;
    if (g.query_rows != nullptr) {
        q = of_queries(g, ggml_reshape_2d(g.ctx.get(), q, hp.n_embd_q(), g.shape.n_rows));
        g.expand(q, g.mdl.layer_devs[static_cast<size_t>(il)]);
        q = ggml_reshape_3d(g.ctx.get(), q, hp.n_embd_head, hp.n_head, g.shape.n_query);
    }
    asking a = {q, heads_of(g, g.seg.kv_of(il).k), nullptr, {nullptr, nullptr}};
    if (g.has_our_attention(il)) {
        a.entries = entries_of(g, il);
        a.entries.visible = of_queries(g, a.entries.visible);
    } else {
        a.mask = of_queries(g, mask_of(g, il));
    }
    return a;
}

// One query head, and the K head that it looks at.
asking one_head(const graph_state & g, const asking & a, int h) {
    const int64_t h_kv = h / (a.q->ne[1] / a.k->ne[2]);
    asking one = a;
    one.q = ggml_view_3d(g.ctx.get(), a.q, a.q->ne[0], 1, a.q->ne[2], a.q->nb[1], a.q->nb[2],
                         static_cast<size_t>(h) * a.q->nb[1]);
    one.k = ggml_view_3d(g.ctx.get(), a.k, a.k->ne[0], a.k->ne[1], 1, a.k->nb[1], a.k->nb[2],
                         static_cast<size_t>(h_kv) * a.k->nb[2]);
    return one;
}

// F32 [n_kv, n_query, n_head]
ggml_tensor * build_probs(graph_state & g, const asking & a, int il) {
    ggml_context * ctx = g.ctx.get();
    const float softcap = g.mdl.hp.layer(il).attn_softcap;
    if (a.mask == nullptr) {
        attention_settings & settings = g.attention.emplace_back();
        settings.softcap = softcap;
        return build_attention_scores(ctx, a.q, a.k, a.entries, settings);
    }
    float scale = g.mdl.hp.head_scale();
    ggml_tensor * kq = ggml_mul_mat(ctx, a.k, ggml_permute(ctx, a.q, 0, 2, 1, 3));
    ggml_prec_set_acc(kq, GGML_PREC_F32);
    if (softcap > 0.0F) {
        kq = ggml_scale(ctx, ggml_tanh(ctx, ggml_scale(ctx, kq, scale / softcap)), softcap);
        scale = 1.0F;
    }
    return ggml_soft_max_ext(ctx, kq, a.mask, scale, /*max_bias=*/0.0F);
}

// probs F32 [n_kv, n_query, n_head] -> F32 [n_kv, n_query]
ggml_tensor * build_head_mean(ggml_context * ctx, ggml_tensor * probs, bool is_ours) {
    const int64_t n_head = probs->ne[2];
    ggml_tensor * sum = nullptr;
    if (is_ours) {
        sum = build_head_sum(ctx, probs);
    } else {
        sum = ggml_sum_rows(ctx, ggml_cont(ctx, ggml_permute(ctx, probs, 1, 2, 0, 3))); // of [n_head, n_kv, n_query]
    }
    return ggml_scale(ctx, sum, 1.0F / static_cast<float>(n_head));
}

// probs F32 [n_kv, n_query, n_head] -> F32 [1, n_kv], or [n_kv, n_query] where it is ours: how rows are added must not
// depend on which of them are in one ubatch
ggml_tensor * build_sum(ggml_context * ctx, ggml_tensor * probs, bool is_ours) {
    if (is_ours) {
        return build_head_sum(ctx, probs);
    }
    ggml_tensor * rows = ggml_reshape_2d(ctx, probs, probs->ne[0], probs->ne[1] * probs->ne[2]);
    return ggml_sum_rows(ctx, ggml_cont(ctx, ggml_transpose(ctx, rows)));
}

void add_scores(graph_state & g, ggml_tensor * scores, int il) {
    ggml_set_name(scores, "scores");
    ggml_set_output(scores);
    g.expand(scores, g.seg.kv_of(il).dev);
    g.scores.push_back({scores, g.has_our_attention(il)});
}

} // namespace

ggml_tensor * heads_of(const graph_state & g, ggml_tensor * cache) {
    const hparams & hp = g.mdl.hp;
    ggml_tensor * view = ggml_view_3d(g.ctx.get(), cache, hp.n_embd_head, hp.n_head_kv, g.shape.n_kv,
                                      ggml_row_size(cache->type, hp.n_embd_head), cache->nb[1], 0);
    return ggml_permute(g.ctx.get(), view, 0, 2, 1, 3);
}

void build_scores(graph_state & g, ggml_tensor * q, int il, const scored_layer & scored) {
    ggml_context * ctx = g.ctx.get();
    const asking a = asking_rows(g, q, il);
    const bool is_ours = g.has_our_attention(il);
    if (scored.heads.empty()) {
        ggml_tensor * probs = build_probs(g, a, il);
        switch (g.shape.form) {
            case score_form::by_query: add_scores(g, build_head_mean(ctx, probs, is_ours), il); break;
            case score_form::every_head: add_scores(g, probs, il); break;
            case score_form::sum: add_scores(g, build_sum(ctx, probs, is_ours), il); break;
        }
    }
    for (const int h : scored.heads) {
        add_scores(g, build_probs(g, one_head(g, a, h), il), il);
    }
}

} // namespace lazygguf
