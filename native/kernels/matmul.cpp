// matmul.cpp: nodes of the graph that run the matmul kernels of this CPU.

#include "kernels/matmul.h"

#include "kernels/isa.h"
#include "kernels/packing.h"

namespace lazygguf {
bool has_matmul(ggml_type type, int64_t n_in, int64_t n_out) {
    return kernels().matmul.multiply(type) != nullptr && n_in % ggml_blck_size(type) == 0 && n_out > 0;
}

size_t packed_matrix_size(ggml_type type, int64_t n_in, int64_t n_out) {
    const int64_t n_lanes = kernels().matmul.n_lanes;
    return ggml_row_size(type, n_in) * static_cast<size_t>((n_out + n_lanes - 1) / n_lanes * n_lanes);
}

void pack_matrix(ggml_type type, int64_t n_in, int64_t n_out, const char * rows, char * out, int part, int n_parts) {
    pack_tiles({type, n_in, n_out}, kernels().matmul.n_lanes, rows, out, part, n_parts);
}

ggml_tensor * build_packed_rows(ggml_context * ctx, ggml_tensor * x, bool as_floats) {
    const matmul_kernels & k = kernels().matmul;
    ggml_tensor * args[] = {x};
    const int64_t n_bytes = k.packed_size(x->ne[0], x->ne[1], as_floats);
    return ggml_custom_4d(ctx, GGML_TYPE_I8, n_bytes / x->ne[1], x->ne[1], 1, 1, args, 1,
                          as_floats ? k.pack_floats : k.pack_bytes, GGML_N_TASKS_MAX, nullptr);
}

ggml_tensor * build_matmul(ggml_context * ctx, ggml_tensor * matrix, ggml_tensor * packed, matmul_op & op) {
    ggml_tensor * args[] = {matrix, packed};
    return ggml_custom_4d(ctx, GGML_TYPE_F32, op.n_out, packed->ne[1], 1, 1, args, 2,
                          kernels().matmul.multiply(op.type), GGML_N_TASKS_MAX, &op);
}

} // namespace lazygguf
