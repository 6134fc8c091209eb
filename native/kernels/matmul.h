// matmul.h: quantized matrices times rows of floats, on CPUs with byte products.
//
// ggml multiplies one row of the matrix with one row of floats at a time and unpacks the weights each time; here a
// tile of the matrix is unpacked once for all rows, and a vector register holds a column of it. The rows become 8-bit
// integers with a scale per 32 values, as in ggml's kernels (its K-quants: per 256). Works on the bytes as they lie in
// the file, for one row as for many.
#pragma once

#include <ggml-cpp.h>

#include "simd/work_queue.h"

namespace lazygguf {

// Has this CPU a kernel for matrices [n_in, n_out] of this type?
bool has_matmul(ggml_type type, int64_t n_in, int64_t n_out);

// x F32 [n_in, n_rows] -> the same rows as 8-bit integers, in the order in which build_matmul reads them. One such
// tensor serves every matrix that multiplies x.
ggml_tensor * build_packed_rows(ggml_context * ctx, ggml_tensor * x);

// weights [n_in, n_out], packed from build_packed_rows -> F32 [n_out, n_rows]. The queue is this op's own and must
// outlive the graph.
ggml_tensor * build_matmul(ggml_context * ctx, ggml_tensor * weights, ggml_tensor * packed, work_queue & queue);

} // namespace lazygguf
