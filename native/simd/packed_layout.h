// packed_layout.h: how a matrix lies in memory for the matmul kernels.
//
// A tile is n_lanes rows of the matrix; the last one is filled up with zeros. Within a tile come the file's blocks, all
// rows' first block before the second ones, and within a block the file's fields (scales, codes) one after another, cut
// into words of 2 or 4 bytes: word 0 of each row, word 1 of each row, and so on. So a vector register is loaded with
// the same word of n_lanes rows, and the matrix takes as many bytes as in the file.
// The fifth bits of Q5_0 and Q5_1 alone are in another order: bit j of byte k is that of column 4 * j + k.
#pragma once

#include <cstddef>

#include <ggml.h>

namespace lazygguf {

// A field of a block in the file, in the order in which fields are packed.
struct packed_field {
    int offset;    // bytes, in the file's block
    int word_size; // bytes
    int n_words;
    bool is_fifth_bits = false;
};

struct packed_block {
    packed_field fields[5];
    int n_fields;
};

// n_fields is 0 for a type that has no kernel.
constexpr packed_block packed_block_of(ggml_type type) {
    switch (type) {
        case GGML_TYPE_F32: return {{{0, 4, 1}}, 1};
        case GGML_TYPE_F16:
        case GGML_TYPE_BF16: return {{{0, 2, 1}}, 1};
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_IQ4_NL: return {{{0, 2, 1}, {2, 4, 4}}, 2};
        case GGML_TYPE_Q4_1: return {{{0, 2, 2}, {4, 4, 4}}, 2};
        case GGML_TYPE_Q5_0: return {{{0, 2, 1}, {2, 4, 1, true}, {6, 4, 4}}, 3};
        case GGML_TYPE_Q5_1: return {{{0, 2, 2}, {4, 4, 1, true}, {8, 4, 4}}, 3};
        case GGML_TYPE_Q8_0: return {{{0, 2, 1}, {2, 4, 8}}, 2};
        case GGML_TYPE_IQ4_XS: return {{{0, 2, 2}, {4, 4, 1}, {8, 4, 32}}, 3};
        case GGML_TYPE_Q2_K: return {{{80, 2, 2}, {0, 4, 4}, {16, 4, 16}}, 3};
        case GGML_TYPE_Q3_K: return {{{108, 2, 1}, {96, 4, 3}, {0, 4, 8}, {32, 4, 16}}, 4};
        case GGML_TYPE_Q4_K: return {{{0, 2, 2}, {4, 4, 3}, {16, 4, 32}}, 3};
        case GGML_TYPE_Q5_K: return {{{0, 2, 2}, {4, 4, 3}, {16, 4, 8}, {48, 4, 32}}, 4};
        case GGML_TYPE_Q6_K: return {{{208, 2, 1}, {192, 4, 4}, {128, 4, 16}, {0, 4, 32}}, 4};
        default: return {};
    }
}

// Bytes of one row's block, as in the file.
constexpr int packed_block_bytes(ggml_type type) {
    const packed_block block = packed_block_of(type);
    int n_bytes = 0;
    for (int i = 0; i < block.n_fields; ++i) {
        n_bytes += block.fields[i].word_size * block.fields[i].n_words;
    }
    return n_bytes;
}

// Are rows multiplied as floats with a matrix of this type, or else as bytes?
constexpr bool takes_floats(ggml_type type) {
    return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16;
}

} // namespace lazygguf
