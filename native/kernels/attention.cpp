// attention.cpp: nodes of the graph that run the attention kernels of this CPU.

#include "kernels/attention.h"

#include <algorithm>

#include "kernels/isa.h"

namespace lazygguf {
namespace {

constexpr int64_t PART_ROWS = 256; // cache rows of a part, at least
constexpr int64_t MAX_PARTS = 48;  // parts over all rows and K/V heads, about
// With fewer queries of a group, unpacking costs more than it saves.
constexpr int64_t MIN_QUERIES = 4;

bool is_float(const ggml_tensor * t) { return t->type == GGML_TYPE_F16 || t->type == GGML_TYPE_F32; }

} // namespace

bool has_attention_rows(const ggml_tensor * q, const ggml_tensor * k, const ggml_tensor * v) {
    const int64_t n_queries = q->ne[2] * q->ne[1] / k->ne[2]; // that share what is unpacked
    return n_queries >= MIN_QUERIES && q->ne[0] % kernels().attention.n_lanes == 0 && is_float(k) && is_float(v);
}

ggml_tensor * build_attention_rows(ggml_context * ctx, ggml_tensor * q, ggml_tensor * k, ggml_tensor * v,
                                   ggml_tensor * mask) {
    ggml_tensor * args[] = {q, k, v, mask};
    const auto build = [&](int64_t n_values, int64_t n_parts) {
        return ggml_custom_4d(ctx, GGML_TYPE_F32, n_values, q->ne[1], q->ne[2], n_parts, args, 4,
                              kernels().attention.attend, GGML_N_TASKS_MAX, nullptr);
    };
    // few rows: the cache is cut, so that there is work for every thread
    const int64_t n_parts = std::min(k->ne[1] / PART_ROWS, MAX_PARTS / (k->ne[2] * q->ne[2]));
    if (n_parts <= 1) {
        return build(q->ne[0], 1);
    }
    ggml_tensor * parts[] = {build(q->ne[0] + 2, n_parts)};
    return ggml_custom_4d(ctx, GGML_TYPE_F32, q->ne[0], q->ne[1], q->ne[2], 1, parts, 1,
                          kernels().attention.merge_parts, GGML_N_TASKS_MAX, nullptr);
}

bool has_key_products(const ggml_tensor * q, const ggml_tensor * k) {
    return q->ne[1] * q->ne[2] / k->ne[2] >= MIN_QUERIES && q->ne[0] % kernels().attention.n_lanes == 0 && is_float(k);
}

ggml_tensor * build_key_products(ggml_context * ctx, ggml_tensor * q, ggml_tensor * k) {
    ggml_tensor * args[] = {q, k};
    return ggml_custom_4d(ctx, GGML_TYPE_F32, k->ne[1], q->ne[1], q->ne[2], 1, args, 2,
                          kernels().attention.key_products, GGML_N_TASKS_MAX, nullptr);
}

} // namespace lazygguf
