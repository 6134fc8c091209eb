// matmul.cpp: nodes of the graph that run the matmul kernels of this CPU.

#include "kernels/matmul.h"

#include "kernels/isa.h"

namespace lazygguf {

bool has_matmul(ggml_type type, int64_t n_in, int64_t n_out) {
    const matmul_kernels & k = kernels().matmul;
    return k.multiply(type) != nullptr && n_in % ggml_blck_size(type) == 0 && n_out >= k.n_lanes;
}

ggml_tensor * build_packed_rows(ggml_context * ctx, ggml_tensor * x) {
    ggml_tensor * args[] = {x};
    const int64_t n_bytes = kernels().matmul.packed_size(x->ne[0], x->ne[1]);
    return ggml_custom_4d(ctx, GGML_TYPE_I8, n_bytes / x->ne[1], x->ne[1], 1, 1, args, 1, kernels().matmul.pack_rows,
                          GGML_N_TASKS_MAX, nullptr);
}

ggml_tensor * build_matmul(ggml_context * ctx, ggml_tensor * weights, ggml_tensor * packed, work_queue & queue) {
    ggml_tensor * args[] = {weights, packed};
    return ggml_custom_4d(ctx, GGML_TYPE_F32, weights->ne[1], packed->ne[1], 1, 1, args, 2,
                          kernels().matmul.multiply(weights->type), GGML_N_TASKS_MAX, &queue);
}

} // namespace lazygguf
