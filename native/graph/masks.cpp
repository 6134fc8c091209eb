// masks.cpp: masks from the host, masks made by a device, and spans of positions.

#include "graph/masks.h"

#include <algorithm>

#include "graph/set_input.h"

namespace lazygguf {
namespace {

// Becomes -inf as F16.
constexpr float HIDDEN_SCORE = -1e30F;
constexpr ggml_fp16_t F16_ZERO = 0x0000;
constexpr ggml_fp16_t F16_NEG_INF = 0xfc00;

mask_key key_of(const graph_state & g, int il) { return {g.seg.kv_of(il).dev, g.mdl.hp.layer(il).n_window}; }

// F16 [n_kv, n_rows]: 0 where a row may look at a K/V row, which is where its position is not above its own, and not
// n_window or more below. Positions are whole numbers, so that what is outside is outside by 1 or more.
ggml_tensor * build_mask(const graph_state & g, int n_window) {
    ggml_context * ctx = g.ctx.get();
    ggml_tensor * above = ggml_sub(ctx, ggml_repeat_4d(ctx, g.kv_pos, g.shape.n_kv, g.shape.n_rows, 1, 1), g.row_pos);
    ggml_tensor * hidden = ggml_clamp(ctx, above, 0.0F, 1.0F);
    if (n_window > 0) {
        const auto reach = static_cast<float>(1 - n_window);
        hidden = ggml_add(ctx, hidden, ggml_clamp(ctx, ggml_scale_bias(ctx, above, -1.0F, reach), 0.0F, 1.0F));
    }
    return ggml_cast(ctx, ggml_scale(ctx, hidden, HIDDEN_SCORE), GGML_TYPE_F16);
}

// (n_rows, n_kv)
std::vector<ggml_fp16_t> host_mask(const graph_inputs & in, int n_window) {
    std::vector<ggml_fp16_t> mask(in.pos.size() * in.kv_pos.size());
    auto out = mask.begin();
    for (const int32_t pos : in.pos) {
        const int32_t first = n_window > 0 ? pos - n_window + 1 : 0;
        out = std::transform(in.kv_pos.begin(), in.kv_pos.end(), out,
                             [=](int32_t p) { return p <= pos && p >= first ? F16_ZERO : F16_NEG_INF; });
    }
    return mask;
}

// (n_kv) the K/V rows of the live positions, and row 0 where there are no more
std::vector<int32_t> padded_order(const graph_inputs & in) {
    std::vector<int32_t> order = in.live_rows;
    order.resize(in.kv_pos.size(), 0);
    return order;
}

// (n_rows, 2): the entries of that order which each row sees, [begin, end)
std::vector<int32_t> visible_spans(const graph_inputs & in, int n_window) {
    std::vector<int32_t> spans;
    const auto first = in.live_pos.begin();
    for (const int32_t pos : in.pos) {
        const auto end = std::upper_bound(first, in.live_pos.end(), pos);
        const auto begin = n_window > 0 ? std::upper_bound(first, end, pos - n_window) : first;
        spans.push_back(static_cast<int32_t>(begin - first));
        spans.push_back(static_cast<int32_t>(end - first));
    }
    return spans;
}

} // namespace

void build_masks(graph_state & g) {
    for (int il = g.seg.il_begin; il < g.seg.il_end; ++il) {
        const mask_key key = key_of(g, il);
        if (g.has_our_attention(il)) {
            if (g.kv_order == nullptr) {
                g.kv_order = g.new_input(GGML_TYPE_I32, g.shape.n_kv, 1, "kv_order");
            }
            ggml_tensor *& visible = g.visible[key.n_window];
            visible = visible != nullptr ? visible : g.new_input(GGML_TYPE_I32, 2, g.shape.n_rows, "visible");
            continue;
        }
        if (g.masks.count(key) > 0) {
            continue;
        }
        if (key.dev == g.mdl.cpu_dev) {
            g.masks[key] = g.new_input(GGML_TYPE_F16, g.shape.n_kv, g.shape.n_rows, "mask");
            continue;
        }
        if (g.kv_pos == nullptr) {
            g.kv_pos = g.new_input(GGML_TYPE_F32, g.shape.n_kv, 1, "kv_pos");
            g.row_pos = g.new_input(GGML_TYPE_F32, 1, g.shape.n_rows, "row_pos");
        }
        g.masks[key] = build_mask(g, key.n_window);
        g.expand(g.masks[key], key.dev);
    }
}

ggml_tensor * mask_of(const graph_state & g, int il) { return g.masks.at(key_of(g, il)); }

kv_entries entries_of(const graph_state & g, int il) { return {g.kv_order, g.visible.at(g.mdl.hp.layer(il).n_window)}; }

void set_masks(const graph_state & g, const graph_inputs & in) {
    if (g.kv_order != nullptr) {
        set_input(g.kv_order, padded_order(in));
    }
    for (const auto & [n_window, visible] : g.visible) {
        set_input(visible, visible_spans(in, n_window));
    }
    for (const auto & [key, mask] : g.masks) {
        if (key.dev == g.mdl.cpu_dev) {
            set_input(mask, host_mask(in, key.n_window));
        }
    }
    if (g.kv_pos != nullptr) {
        set_input(g.kv_pos, std::vector<float>(in.kv_pos.begin(), in.kv_pos.end()));
        set_input(g.row_pos, std::vector<float>(in.pos.begin(), in.pos.end()));
    }
}

} // namespace lazygguf
