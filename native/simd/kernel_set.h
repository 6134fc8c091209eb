// kernel_set.h: the kernels of one instruction set, as the functions that ggml's custom operations call.
//
// Every other file of this room is compiled once for each instruction set, in a namespace of its name (LAZY_ISA), with
// the compiler's options for it. So nothing here may be shared with other code by the linker: a template or an inline
// function of the standard library, compiled for AVX-512, would be taken for all (tests/unit/native/test_simd.py).
#pragma once

#include <cstddef>
#include <cstdint>

#include <ggml.h>

namespace lazygguf {

struct attention_kernels {
    int n_lanes; // heads must be a multiple of it
    ggml_custom_op_t attend;
    ggml_custom_op_t merge_parts;
    ggml_custom_op_t key_products;
};

// Rows become bytes, or stay floats where the matrix's weights are floats.
struct matmul_kernels {
    int n_lanes;                // rows of the matrix in a tile
    ggml_custom_op_t pack_bytes;
    ggml_custom_op_t pack_floats;
    int64_t (*packed_size)(int64_t n_in, int64_t n_rows, bool as_floats); // bytes
    ggml_custom_op_t (*multiply)(ggml_type type);                         // null: no kernel
};

struct kernel_set {
    attention_kernels attention;
    matmul_kernels matmul;
};

} // namespace lazygguf

#ifdef LAZY_ISA
namespace lazygguf::LAZY_ISA {
attention_kernels attention();
matmul_kernels matmul();
void key_products(ggml_tensor * dst, int ith, int nth, void * unused);
} // namespace lazygguf::LAZY_ISA
#endif
