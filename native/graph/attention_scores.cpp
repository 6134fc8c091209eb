// attention_scores.cpp: softmax of Q * K for the asking rows alone.

#include "graph/attention_scores.h"

#include "graph/masks.h"
#include "kernels/attention.h"

namespace lazygguf {
namespace {

// q F32 [n_embd_head, n_query, n], k [n_embd_head, n_kv, n or less] -> F32 [n_kv, n_query, n] attention
ggml_tensor * build_probs(const graph_state & g, ggml_tensor * q, ggml_tensor * k, ggml_tensor * mask, int il) {
    ggml_context * ctx = g.ctx.get();
    const float softcap = g.mdl.hp.layer(il).attn_softcap;
    float scale = g.mdl.hp.head_scale();
    ggml_tensor * kq = nullptr;
    if (g.mdl.has_fast_attention(g.seg.kv_of(il).dev) && has_key_products(q, k)) {
        kq = build_key_products(ctx, q, k);
    } else {
        kq = ggml_mul_mat(ctx, k, q);
        ggml_prec_set_acc(kq, GGML_PREC_F32);
    }
    if (softcap > 0.0F) {
        kq = ggml_scale(ctx, ggml_tanh(ctx, ggml_scale(ctx, kq, scale / softcap)), softcap);
        scale = 1.0F;
    }
    return ggml_soft_max_ext(ctx, kq, mask, scale, /*max_bias=*/0.0F);
}

// probs F32 [n_kv, n_query, n_head] -> F32 [n_kv, n_query]
ggml_tensor * build_head_mean(ggml_context * ctx, ggml_tensor * probs) {
    const int64_t n_head = probs->ne[2];
    ggml_tensor * by_kv = ggml_cont(ctx, ggml_permute(ctx, probs, 1, 2, 0, 3)); // [n_head, n_kv, n_query]
    return ggml_scale(ctx, ggml_sum_rows(ctx, by_kv), 1.0F / static_cast<float>(n_head));
}

// probs F32 [n_kv, n_query, n_head] -> F32 [1, n_kv]
ggml_tensor * build_sum(ggml_context * ctx, ggml_tensor * probs) {
    ggml_tensor * rows = ggml_reshape_2d(ctx, probs, probs->ne[0], probs->ne[1] * probs->ne[2]);
    return ggml_sum_rows(ctx, ggml_cont(ctx, ggml_transpose(ctx, rows)));
}

void add_scores(graph_state & g, ggml_tensor * scores, int il) {
    ggml_set_name(scores, "scores");
    ggml_set_output(scores);
    g.expand(scores, g.seg.kv_of(il).dev);
    g.scores.push_back(scores);
}

} // namespace

ggml_tensor * heads_of(const graph_state & g, ggml_tensor * cache) {
    const hparams & hp = g.mdl.hp;
    ggml_tensor * view = ggml_view_3d(g.ctx.get(), cache, hp.n_embd_head, hp.n_head_kv, g.shape.n_kv,
                                      ggml_row_size(cache->type, hp.n_embd_head), cache->nb[1], 0);
    return ggml_permute(g.ctx.get(), view, 0, 2, 1, 3);
}

void build_scores(graph_state & g, ggml_tensor * q, int il, const scored_layer & scored) {
    const hparams & hp = g.mdl.hp;
    ggml_context * ctx = g.ctx.get();
    ggml_tensor * mask = mask_of(g, il);
    if (g.query_rows != nullptr) {
        q = ggml_get_rows(ctx, ggml_reshape_2d(ctx, q, hp.n_embd_q(), g.shape.n_rows), g.query_rows);
        g.expand(q, g.mdl.layer_devs[static_cast<size_t>(il)]);
        q = ggml_reshape_3d(ctx, q, hp.n_embd_head, hp.n_head, g.shape.n_query);
        mask = ggml_get_rows(ctx, mask, g.query_rows);
    }
    q = ggml_permute(ctx, q, 0, 2, 1, 3); // [n_embd_head, n_query, n_head]
    ggml_tensor * k = heads_of(g, g.seg.kv_of(il).k);
    if (scored.heads.empty()) {
        ggml_tensor * probs = build_probs(g, q, k, mask, il);
        switch (g.shape.form) {
            case score_form::by_query: add_scores(g, build_head_mean(ctx, probs), il); break;
            case score_form::every_head: add_scores(g, probs, il); break;
            case score_form::sum: add_scores(g, build_sum(ctx, probs), il); break;
        }
    }
    for (const int h : scored.heads) {
        const int h_kv = h / (hp.n_head / hp.n_head_kv);
        ggml_tensor * qh = ggml_view_2d(ctx, q, q->ne[0], q->ne[1], q->nb[1], static_cast<size_t>(h) * q->nb[2]);
        ggml_tensor * kh = ggml_view_2d(ctx, k, k->ne[0], k->ne[1], k->nb[1], static_cast<size_t>(h_kv) * k->nb[2]);
        add_scores(g, build_probs(g, qh, kh, mask, il), il);
    }
}

} // namespace lazygguf
