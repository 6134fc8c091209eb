// matmul.h: matrices of a model times rows of floats, on the CPU.
//
// ggml multiplies one row of the matrix with one row of floats at a time and unpacks the weights each time; here a
// tile of the matrix is unpacked once for all rows, and a vector register holds a column of it. For quantized matrices
// the rows become 8-bit integers with a scale per 32 values, as in ggml's kernels (its K-quants: per 256). A row's
// result does not depend on the rows beside it.
#pragma once

#include <ggml-cpp.h>

#include "simd/matmul_op.h"
#include "simd/packed_layout.h"

namespace lazygguf {

// Is there a kernel for matrices [n_in, n_out] of this type?
bool has_matmul(ggml_type type, int64_t n_in, int64_t n_out);

// Bytes of such a matrix as the kernels read it: the last rows are filled up.
size_t packed_matrix_size(ggml_type type, int64_t n_in, int64_t n_out);

// Rows of the file -> the kernels' layout (simd/packed_layout.h). A part of all parts: for threads.
void pack_matrix(ggml_type type, int64_t n_in, int64_t n_out, const char * rows, char * out, int part, int n_parts);

// x F32 [n_in, n_rows] -> the same rows in the order in which build_matmul reads them for a matrix of this type: one
// such tensor serves every matrix with floats, another one all others.
ggml_tensor * build_packed_rows(ggml_context * ctx, ggml_tensor * x, bool as_floats);

// matrix I8, filled by pack_matrix, times packed rows -> F32 [n_out, n_rows]. `op` is this node's own and must outlive
// the graph.
ggml_tensor * build_matmul(ggml_context * ctx, ggml_tensor * matrix, ggml_tensor * packed, matmul_op & op);

} // namespace lazygguf
