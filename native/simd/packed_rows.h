// packed_rows.h: rows of floats in the order in which the matmul kernels read them.
#pragma once

#include "simd/lanes.h"

namespace lazygguf::LAZY_ISA {

constexpr int BLOCK = 32; // columns with one scale of a row

constexpr int least(int a, int b) { return a < b ? a : b; }

// One block of columns of a group of n rows, as bytes: 8 groups of four bytes of each row, then three floats of each
// row: the scale, the sum of the values as rounded, and that of the first 16 of them.
constexpr int ROW_WORDS = BLOCK / 4 + 3;

// The groups of packed rows: all of GROUP_ROWS but the last. As bytes, the blocks of a group follow each other.
struct packed_rows {
    char * data;
    int64_t n_in;
    int n_rows;

    int n_groups() const { return (n_rows + GROUP_ROWS - 1) / GROUP_ROWS; }
    int count(int g) const { return least(GROUP_ROWS, n_rows - g * GROUP_ROWS); }
    int n_blocks() const { return static_cast<int>(n_in / BLOCK); }
    int32_t * blocks(int g) const {
        return reinterpret_cast<int32_t *>(data) + static_cast<int64_t>(g) * GROUP_ROWS * n_blocks() * ROW_WORDS;
    }
    // F32 [n_in, n], the numbers of one column together
    float * columns(int g) const {
        return reinterpret_cast<float *>(data) + static_cast<int64_t>(g) * GROUP_ROWS * n_in;
    }
};

int64_t packed_size(int64_t n_in, int64_t n_rows, bool as_floats); // bytes

// Operations of the graph: a tensor of rows -> those rows, packed.
void pack_bytes(ggml_tensor * dst, int ith, int nth, void * unused);
void pack_floats(ggml_tensor * dst, int ith, int nth, void * unused);

} // namespace lazygguf::LAZY_ISA
