// kernel_set.h: the kernels of one instruction set, as the functions that ggml's custom operations call.
//
// Every other file of this room is compiled once for each instruction set, in a namespace of its name (LAZY_ISA), with
// the compiler's options for it. So nothing here may be shared with other code by the linker: a template or an inline
// function of the standard library, compiled for AVX-512, would be taken for all (tests/unit/native/test_simd.py).
#pragma once

#include <cstddef>
#include <cstdint>

#include <ggml.h>

#include "simd/work_queue.h"

namespace lazygguf {

// Entries of kv_order that are attended to from scratch, before what was found is merged.
constexpr int ATTENTION_CHUNK = 256;

// What an op of attention has besides its tensors; its own, and it must outlive the graph.
struct attention_settings {
    float softcap = 0.0F; // products go through cap * tanh(x / cap); 0: as they are
    work_queue queue;
};

struct attention_kernels {
    ggml_custom_op_t attend;                    // with attention_settings
    ggml_custom_op_t merge_chunks;              // where attend gives one result for each chunk,
    int64_t (*found_size)(int64_t n_embd_head); // of so many floats
    ggml_custom_op_t key_products;              // with attention_settings
    ggml_custom_op_t soften_scores;
    ggml_custom_op_t sum_heads;
};

// Rows become bytes, or stay floats where the matrix's weights are floats.
struct matmul_kernels {
    int n_lanes; // rows of the matrix in a tile
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
// attention_scores.cpp
void key_products(ggml_tensor * dst, int ith, int nth, void * userdata);
void soften_scores(ggml_tensor * dst, int ith, int nth, void * userdata);
void sum_heads(ggml_tensor * dst, int ith, int nth, void * userdata);
} // namespace lazygguf::LAZY_ISA
#endif
