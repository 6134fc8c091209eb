// attention.cpp: nodes of the graph that run the attention kernels of this CPU.

#include "kernels/attention.h"

#include "kernels/isa.h"

namespace lazygguf {
namespace {

// With so few rows the entries are cut, so that there is work for every thread. What is written down between grows with
// rows and chunks.
constexpr int64_t MAX_SPLIT_ROWS = 16;

} // namespace

ggml_tensor * build_attention(ggml_context * ctx, ggml_tensor * q, ggml_tensor * k, ggml_tensor * v, kv_entries entries,
                              attention_settings & settings) {
    const attention_kernels & kernel = kernels().attention;
    ggml_tensor * args[] = {q, k, v, entries.order, entries.visible};
    const auto build = [&](int64_t n_values, int64_t n_chunks) {
        return ggml_custom_4d(ctx, GGML_TYPE_F32, n_values, q->ne[1], q->ne[2], n_chunks, args, 5, kernel.attend,
                              GGML_N_TASKS_MAX, &settings);
    };
    const int64_t n_chunks = (k->ne[1] + ATTENTION_CHUNK - 1) / ATTENTION_CHUNK;
    if (n_chunks == 1 || q->ne[2] > MAX_SPLIT_ROWS) {
        return build(q->ne[0], 1);
    }
    ggml_tensor * chunks[] = {build(kernel.found_size(q->ne[0]), n_chunks), entries.visible};
    return ggml_custom_4d(ctx, GGML_TYPE_F32, q->ne[0], q->ne[1], q->ne[2], 1, chunks, 2, kernel.merge_chunks,
                          GGML_N_TASKS_MAX, nullptr);
}

ggml_tensor * build_attention_scores(ggml_context * ctx, ggml_tensor * q, ggml_tensor * k, kv_entries entries,
                                     attention_settings & settings) {
    ggml_tensor * args[] = {q, k, entries.order, entries.visible};
    ggml_tensor * products = ggml_custom_4d(ctx, GGML_TYPE_F32, k->ne[1], q->ne[2], q->ne[1], 1, args, 4,
                                            kernels().attention.key_products, GGML_N_TASKS_MAX, &settings);
    ggml_tensor * seen[] = {products, entries.visible};
    return ggml_custom_4d(ctx, GGML_TYPE_F32, k->ne[1], q->ne[2], q->ne[1], 1, seen, 2,
                          kernels().attention.soften_scores, GGML_N_TASKS_MAX, nullptr);
}

ggml_tensor * build_head_sum(ggml_context * ctx, ggml_tensor * scores) {
    ggml_tensor * args[] = {scores};
    return ggml_custom_4d(ctx, GGML_TYPE_F32, scores->ne[0], scores->ne[1], 1, 1, args, 1,
                          kernels().attention.sum_heads, GGML_N_TASKS_MAX, nullptr);
}

} // namespace lazygguf
