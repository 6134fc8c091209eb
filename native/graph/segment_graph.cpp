// segment_graph.cpp: the forward pass of the Llama family, one segment at a time.

#include "graph/segment_graph.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/attention.h"

namespace lazygguf {
namespace {

constexpr int NODES_PER_LAYER = 64;
constexpr int NODES_PER_SCORED_HEAD = 16;
// From this many query rows on, ggml's CPU flash attention sums in F32 instead of F16. The model's last layer needs
// one row, but asks with so many that its result is as good as llama.cpp's.
constexpr int64_t PRECISE_ROWS = 64;
// Becomes -inf as F16.
constexpr float HIDDEN_SCORE = -1e30F;
constexpr ggml_fp16_t F16_ZERO = 0x0000;
constexpr ggml_fp16_t F16_NEG_INF = 0xfc00;

bool is_view(const ggml_tensor * t) {
    return t->op == GGML_OP_NONE || t->op == GGML_OP_VIEW || t->op == GGML_OP_RESHAPE || t->op == GGML_OP_PERMUTE ||
           t->op == GGML_OP_TRANSPOSE;
}

// Rope reads its frequencies, but runs with its layer.
bool follows_weights(const ggml_tensor * t) {
    for (int i = 0; i < GGML_MAX_SRC && t->op != GGML_OP_ROPE; ++i) {
        const ggml_tensor * src = t->src[i];
        if (src != nullptr && src->buffer != nullptr &&
            ggml_backend_buffer_get_usage(src->buffer) == GGML_BACKEND_BUFFER_USAGE_WEIGHTS) {
            return true;
        }
    }
    return false;
}

int max_nodes(const segment_tensors & seg, const graph_shape & shape) {
    int n_score_parts = 2;
    for (const scored_layer & scored : shape.scored) {
        n_score_parts += 2 + static_cast<int>(scored.heads.size());
    }
    return 160 + (seg.il_end - seg.il_begin) * NODES_PER_LAYER + n_score_parts * NODES_PER_SCORED_HEAD;
}

// The last n rows of a 2-D tensor, or all where it has fewer.
ggml_tensor * last_rows(ggml_context * ctx, ggml_tensor * t, int64_t n) {
    return t->ne[1] <= n ? t
                         : ggml_view_2d(ctx, t, t->ne[0], n, t->nb[1], static_cast<size_t>(t->ne[1] - n) * t->nb[1]);
}

} // namespace

segment_graph::segment_graph(const model & mdl, segment_tensors seg, const graph_shape & shape)
    : mdl_(mdl), seg_(std::move(seg)), shape_(shape) {
    const int n_nodes = max_nodes(seg_, shape_);
    ggml_init_params params = {ggml_tensor_overhead() * static_cast<size_t>(n_nodes) +
                                   ggml_graph_overhead_custom(static_cast<size_t>(n_nodes), false),
                               nullptr, /*no_alloc=*/true};
    ctx_.reset(ggml_init(params));
    gf_ = ggml_new_graph_custom(ctx_.get(), static_cast<size_t>(n_nodes), false);
    build();
}

ggml_tensor * segment_graph::new_input(ggml_type type, int64_t ne0, int64_t ne1, const char * name) {
    ggml_tensor * t = ggml_new_tensor_2d(ctx_.get(), type, ne0, ne1);
    ggml_set_name(t, name);
    ggml_set_input(t);
    return t;
}

void segment_graph::build_inputs() {
    if (seg_.aux_in == nullptr) {
        tokens_ = new_input(GGML_TYPE_I32, shape_.n_rows, 1, "tokens");
    }
    pos_ = new_input(GGML_TYPE_I32, shape_.n_rows, 1, "pos");
    kv_rows_ = new_input(GGML_TYPE_I64, shape_.n_rows, 1, "kv_rows");
    if (seg_.aux_out != nullptr) {
        aux_rows_ = new_input(GGML_TYPE_I64, shape_.n_rows, 1, "aux_rows");
    }
    if (shape_.n_query > 0 && shape_.n_query < shape_.n_rows) {
        query_rows_ = new_input(GGML_TYPE_I32, shape_.n_query, 1, "query_rows");
    }
}

// The nodes that came since the last call run on `dev`.
void segment_graph::place(ggml_backend_dev_t dev) {
    for (; n_placed_ < ggml_graph_n_nodes(gf_); ++n_placed_) {
        ggml_tensor * node = ggml_graph_node(gf_, n_placed_);
        if (!is_view(node) && !follows_weights(node)) {
            placed_.push_back({node, dev});
        }
    }
}

void segment_graph::expand(ggml_tensor * t, ggml_backend_dev_t dev) {
    ggml_build_forward_expand(gf_, t);
    place(dev);
}

// One mask for each device that attends. The CPU's comes from the host; the others are made where they are used, from
// two vectors of positions: a mask is as large as the hidden rows, and would cross to each device.
void segment_graph::build_masks() {
    for (const kv_tensors & kv : seg_.kv) {
        if (masks_.count(kv.dev) > 0) {
            continue;
        }
        if (kv.dev == mdl_.cpu_dev) {
            mask_ = new_input(GGML_TYPE_F16, shape_.n_kv, shape_.n_rows, "mask");
            masks_[kv.dev] = mask_;
            continue;
        }
        if (kv_pos_ == nullptr) {
            kv_pos_ = new_input(GGML_TYPE_F32, shape_.n_kv, 1, "kv_pos");
            row_pos_ = new_input(GGML_TYPE_F32, 1, shape_.n_rows, "row_pos");
        }
        masks_[kv.dev] = build_mask();
        expand(masks_[kv.dev], kv.dev);
    }
}

// F16 [n_kv, n_rows]: 0 where a row may look at a K/V row, which is where its position is not above its own.
ggml_tensor * segment_graph::build_mask() {
    ggml_tensor * above =
        ggml_sub(ctx_.get(), ggml_repeat_4d(ctx_.get(), kv_pos_, shape_.n_kv, shape_.n_rows, 1, 1), row_pos_);
    ggml_tensor * hidden = ggml_clamp(ctx_.get(), above, 0.0F, 1.0F); // positions are whole numbers
    return ggml_cast(ctx_.get(), ggml_scale(ctx_.get(), hidden, HIDDEN_SCORE), GGML_TYPE_F16);
}

void segment_graph::build() {
    build_inputs();
    build_masks();
    ggml_tensor * cur = seg_.aux_in == nullptr ? ggml_get_rows(ctx_.get(), mdl_.tok_embd, tokens_)
                                               : ggml_get_rows(ctx_.get(), seg_.aux_in, pos_);
    expand(cur, seg_.aux_in_dev);
    for (int il = seg_.il_begin; il < seg_.il_end && cur != nullptr; ++il) {
        cur = build_layer(cur, il);
    }
    if (seg_.aux_out != nullptr) {
        expand(ggml_set_rows(ctx_.get(), seg_.aux_out, cur, aux_rows_), seg_.aux_out_dev);
    } else if (shape_.want_logits) {
        build_logits(cur);
    }
}

ggml_tensor * segment_graph::build_norm(ggml_tensor * cur, ggml_tensor * weight) {
    return ggml_mul(ctx_.get(), ggml_rms_norm(ctx_.get(), cur, mdl_.hp.rms_eps), weight);
}

ggml_tensor * segment_graph::build_linear(ggml_tensor * weight, ggml_tensor * bias, linear_input & in) {
    ggml_tensor * cur = nullptr;
    if (mdl_.has_our_matmul(weight, in.rows->ne[1])) {
        if (in.packed == nullptr) {
            in.packed = build_packed_rows(ctx_.get(), in.rows);
        }
        cur = build_matmul(ctx_.get(), weight, in.packed, queues_.emplace_back());
    } else {
        cur = ggml_mul_mat(ctx_.get(), weight, in.rows);
    }
    return bias ? ggml_add(ctx_.get(), cur, bias) : cur;
}

// cur F32 [n_head*n_embd_head, n] -> F32 [n_embd_head, n_head, n], rotated by the original positions
ggml_tensor * segment_graph::build_rope(ggml_tensor * cur, ggml_tensor * pos, const layer_weights & layer, int n_head) {
    const rope_params & r = mdl_.hp.rope;
    cur = ggml_reshape_3d(ctx_.get(), cur, mdl_.hp.n_embd_head, n_head, cur->ne[1]);
    return ggml_rope_ext(ctx_.get(), cur, pos, layer.rope_freqs, r.n_rot, r.mode, r.n_ctx_orig, r.freq_base,
                         r.freq_scale, r.ext_factor, r.attn_factor, r.beta_fast, r.beta_slow);
}

// cur F32 [n_embd, n] -> F32 [n_embd_head, n_head, n]
ggml_tensor * segment_graph::build_q(linear_input & in, ggml_tensor * pos, const layer_weights & layer) {
    return build_rope(build_linear(layer.wq, layer.bq, in), pos, layer, mdl_.hp.n_head);
}

// inp F32 [n_embd, n_rows] -> F32 [n_embd, n_rows]; where nothing but logits follows, only the last row goes on, and
// none where no logits are wanted.
ggml_tensor * segment_graph::build_layer(ggml_tensor * inp, int il) {
    const layer_weights & layer = mdl_.layer(il, shape_.n_rows);
    const kv_tensors & kv = seg_.kv[static_cast<size_t>(il - seg_.il_begin)];
    ggml_backend_dev_t dev = mdl_.layer_devs[static_cast<size_t>(il)];
    const scored_layer * scored = find_scored(il);
    const bool is_last = il == seg_.il_end - 1 && seg_.aux_out == nullptr;
    ggml_tensor * mask = masks_[kv.dev];

    linear_input in(build_norm(inp, layer.attn_norm));
    build_kv(in, layer, kv, dev);
    ggml_tensor * q = !is_last || scored ? build_q(in, pos_, layer) : nullptr;
    if (scored) {
        expand(q, dev);
        build_scores(q, kv, *scored, dev);
    }
    if (is_last) {
        if (!shape_.want_logits) {
            return nullptr; // later ubatches attend to these K/V rows; nothing else of this ubatch is read
        }
        if (shape_.n_rows > PRECISE_ROWS) {
            in = linear_input(last_rows(ctx_.get(), in.rows, PRECISE_ROWS));
        }
        mask = last_rows(ctx_.get(), mask, PRECISE_ROWS);
        const int64_t n = in.rows->ne[1];
        const size_t first = static_cast<size_t>(shape_.n_rows - n) * pos_->nb[0];
        q = build_q(in, ggml_view_1d(ctx_.get(), pos_, n, first), layer);
    }
    expand(q, dev);
    ggml_tensor * cur = build_attention(q, kv, mask);
    expand(cur, kv.dev);
    if (is_last) {
        cur = last_rows(ctx_.get(), cur, 1);
        inp = last_rows(ctx_.get(), inp, 1);
    }
    const layer_weights & rest = mdl_.layer(il, cur->ne[1]);
    linear_input attended(cur);
    cur = ggml_add(ctx_.get(), build_linear(rest.wo, rest.bo, attended), inp);
    cur = ggml_add(ctx_.get(), build_ffn(build_norm(cur, rest.ffn_norm), rest), cur);
    expand(cur, dev);
    return cur;
}

// Computes K and V of every row and writes them to their rows of the cache.
void segment_graph::build_kv(linear_input & in, const layer_weights & layer, const kv_tensors & kv,
                             ggml_backend_dev_t dev) {
    ggml_tensor * k = build_rope(build_linear(layer.wk, layer.bk, in), pos_, layer, mdl_.hp.n_head_kv);
    ggml_tensor * v = build_linear(layer.wv, layer.bv, in);
    k = ggml_reshape_2d(ctx_.get(), k, mdl_.hp.n_embd_kv(), shape_.n_rows);
    expand(k, dev);
    expand(v, dev);
    // expanded at once, so that the writes come before every read of the cache below
    expand(ggml_set_rows(ctx_.get(), kv.k, k, kv_rows_), kv.dev);
    expand(ggml_set_rows(ctx_.get(), kv.v, v, kv_rows_), kv.dev);
}

// A cache tensor [n_embd_kv, n] as [n_embd_head, n_rows, n_head_kv]
ggml_tensor * segment_graph::heads_of(ggml_tensor * cache, int64_t n_rows) const {
    ggml_tensor * view = ggml_view_3d(ctx_.get(), cache, mdl_.hp.n_embd_head, mdl_.hp.n_head_kv, n_rows,
                                      ggml_row_size(cache->type, mdl_.hp.n_embd_head), cache->nb[1], 0);
    return ggml_permute(ctx_.get(), view, 0, 2, 1, 3);
}

// q F32 [n_embd_head, n_head, n] -> F32 [n_embd_q, n]
ggml_tensor * segment_graph::build_attention(ggml_tensor * q, const kv_tensors & kv, ggml_tensor * mask) {
    const int64_t n = q->ne[2];
    ggml_tensor * k = heads_of(kv.k, shape_.n_kv);
    ggml_tensor * v = heads_of(kv.v, shape_.n_kv);
    if (mdl_.has_fast_attention(kv.dev) && has_attention_rows(q, k, v)) {
        return ggml_reshape_2d(ctx_.get(), build_attention_rows(ctx_.get(), q, k, v, mask), mdl_.hp.n_embd_q(), n);
    }
    const float scale = 1.0F / std::sqrt(static_cast<float>(mdl_.hp.n_embd_head));
    ggml_tensor * out = ggml_flash_attn_ext(ctx_.get(), ggml_permute(ctx_.get(), q, 0, 2, 1, 3), k, v, mask, scale,
                                            /*max_bias=*/0.0F, /*logit_softcap=*/0.0F);
    ggml_prec_set_acc(out, GGML_PREC_F32);
    return ggml_reshape_2d(ctx_.get(), out, mdl_.hp.n_embd_q(), n);
}

ggml_tensor * segment_graph::build_ffn(ggml_tensor * cur, const layer_weights & layer) {
    linear_input in(cur);
    ggml_tensor * up = build_linear(layer.ffn_up, nullptr, in);
    ggml_tensor * gate = build_linear(layer.ffn_gate, nullptr, in);
    linear_input gated(ggml_swiglu_split(ctx_.get(), gate, up));
    return build_linear(layer.ffn_down, nullptr, gated);
}

// q F32 [n_embd_head, n_query, n], k [n_embd_head, n_kv, n or less] -> F32 [n_kv, n_query, n] attention
ggml_tensor * segment_graph::build_probs(ggml_tensor * q, ggml_tensor * k, ggml_tensor * mask, ggml_backend_dev_t dev) {
    const float scale = 1.0F / std::sqrt(static_cast<float>(mdl_.hp.n_embd_head));
    ggml_tensor * kq = nullptr;
    if (mdl_.has_fast_attention(dev) && has_key_products(q, k)) {
        kq = build_key_products(ctx_.get(), q, k);
    } else {
        kq = ggml_mul_mat(ctx_.get(), k, q);
        ggml_prec_set_acc(kq, GGML_PREC_F32);
    }
    return ggml_soft_max_ext(ctx_.get(), kq, mask, scale, /*max_bias=*/0.0F);
}

// probs F32 [n_kv, n_query, n_head] -> F32 [n_kv, n_query]
ggml_tensor * segment_graph::build_head_mean(ggml_tensor * probs) {
    const int64_t n_head = probs->ne[2];
    ggml_tensor * by_kv = ggml_cont(ctx_.get(), ggml_permute(ctx_.get(), probs, 1, 2, 0, 3)); // [n_head, n_kv, n_query]
    return ggml_scale(ctx_.get(), ggml_sum_rows(ctx_.get(), by_kv), 1.0F / static_cast<float>(n_head));
}

// probs F32 [n_kv, n_query, n_head] -> F32 [1, n_kv]
ggml_tensor * segment_graph::build_sum(ggml_tensor * probs) {
    ggml_tensor * rows = ggml_reshape_2d(ctx_.get(), probs, probs->ne[0], probs->ne[1] * probs->ne[2]);
    return ggml_sum_rows(ctx_.get(), ggml_cont(ctx_.get(), ggml_transpose(ctx_.get(), rows)));
}

const scored_layer * segment_graph::find_scored(int il) const {
    const auto it = std::find_if(shape_.scored.begin(), shape_.scored.end(),
                                 [il](const scored_layer & scored) { return scored.il == il; });
    return shape_.n_query > 0 && it != shape_.scored.end() ? &*it : nullptr;
}

void segment_graph::add_scores(ggml_tensor * scores, ggml_backend_dev_t dev) {
    ggml_set_name(scores, "scores");
    ggml_set_output(scores);
    expand(scores, dev);
    scores_.push_back(scores);
}

// q F32 [n_embd_head, n_head, n_rows]; how much each asking row looks at every K/V row, by the paper's rule (mean over
// heads) or by single heads. All that it may look at has its K by now, since rows are computed in position order.
void segment_graph::build_scores(ggml_tensor * q, const kv_tensors & kv, const scored_layer & scored,
                                 ggml_backend_dev_t dev) {
    const hparams & hp = mdl_.hp;
    ggml_tensor * mask = masks_[kv.dev];
    if (query_rows_ != nullptr) {
        q = ggml_get_rows(ctx_.get(), ggml_reshape_2d(ctx_.get(), q, hp.n_embd_q(), shape_.n_rows), query_rows_);
        expand(q, dev);
        q = ggml_reshape_3d(ctx_.get(), q, hp.n_embd_head, hp.n_head, shape_.n_query);
        mask = ggml_get_rows(ctx_.get(), mask, query_rows_);
    }
    q = ggml_permute(ctx_.get(), q, 0, 2, 1, 3); // [n_embd_head, n_query, n_head]
    ggml_tensor * k = heads_of(kv.k, shape_.n_kv);
    if (scored.heads.empty()) {
        ggml_tensor * probs = build_probs(q, k, mask, kv.dev);
        switch (shape_.form) {
            case score_form::by_query: add_scores(build_head_mean(probs), kv.dev); break;
            case score_form::every_head: add_scores(probs, kv.dev); break;
            case score_form::sum: add_scores(build_sum(probs), kv.dev); break;
        }
    }
    for (const int h : scored.heads) {
        const int h_kv = h / (hp.n_head / hp.n_head_kv);
        ggml_tensor * qh = ggml_view_2d(ctx_.get(), q, q->ne[0], q->ne[1], q->nb[1], static_cast<size_t>(h) * q->nb[2]);
        ggml_tensor * kh =
            ggml_view_2d(ctx_.get(), k, k->ne[0], k->ne[1], k->nb[1], static_cast<size_t>(h_kv) * k->nb[2]);
        add_scores(build_probs(qh, kh, mask, kv.dev), kv.dev);
    }
}

void segment_graph::build_logits(ggml_tensor * cur) {
    logits_ = ggml_mul_mat(ctx_.get(), mdl_.output, build_norm(cur, mdl_.output_norm));
    ggml_set_name(logits_, "logits");
    ggml_set_output(logits_);
    expand(logits_, mdl_.output_dev);
}

namespace {

template <typename T> void set_input(ggml_tensor * t, const std::vector<T> & data) {
    if (t != nullptr && t->buffer != nullptr) { // no buffer: no node of this graph reads it
        ggml_backend_tensor_set(t, data.data(), 0, ggml_nbytes(t));
    }
}

// (n_rows, n_kv)
std::vector<ggml_fp16_t> host_mask(const graph_inputs & in) {
    std::vector<ggml_fp16_t> mask(in.pos.size() * in.kv_pos.size());
    auto out = mask.begin();
    for (const int32_t pos : in.pos) {
        out = std::transform(in.kv_pos.begin(), in.kv_pos.end(), out,
                             [pos](int32_t p) { return p <= pos ? F16_ZERO : F16_NEG_INF; });
    }
    return mask;
}

} // namespace

void segment_graph::set_inputs(const graph_inputs & in) const {
    set_input(tokens_, in.tokens);
    set_input(pos_, in.pos);
    set_input(kv_rows_, in.kv_rows);
    set_input(query_rows_, in.query_rows);
    if (mask_ != nullptr) {
        set_input(mask_, host_mask(in));
    }
    if (kv_pos_ != nullptr) {
        set_input(kv_pos_, std::vector<float>(in.kv_pos.begin(), in.kv_pos.end()));
        set_input(row_pos_, std::vector<float>(in.pos.begin(), in.pos.end()));
    }
    if (aux_rows_ != nullptr) {
        set_input(aux_rows_, std::vector<int64_t>(in.pos.begin(), in.pos.end()));
    }
}

} // namespace lazygguf
