// matmul_op.h: what a node that multiplies carries with it. Lives as long as its graph.
#pragma once

#include <cstdint>

#include <ggml.h>

#include "simd/work_queue.h"

namespace lazygguf {

struct matmul_op {
    ggml_type type = GGML_TYPE_F32; // of the matrix
    int64_t n_in = 0;
    int64_t n_out = 0;
    work_queue queue;

    matmul_op(ggml_type t, int64_t in, int64_t out) : type(t), n_in(in), n_out(out) {}
};

} // namespace lazygguf
