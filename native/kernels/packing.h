// packing.h: how a matrix of the file becomes what the matmul kernels read.
#pragma once

#include <cstdint>

#include <ggml.h>

namespace lazygguf {

struct matrix_shape {
    ggml_type type;
    int64_t n_in;
    int64_t n_out;
};

// Rows of the file -> tiles of n_lanes rows, 16 at most (simd/packed_layout.h). A part of all parts: for threads.
void pack_tiles(const matrix_shape & matrix, int n_lanes, const char * rows, char * out, int part, int n_parts);

} // namespace lazygguf
