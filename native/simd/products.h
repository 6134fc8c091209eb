// products.h: products of a few rows with a tile of K or V, unpacked to floats.
//
// The tile's columns lie in panels: panel p holds the columns [p * PANEL, (p + 1) * PANEL) of every row, row by row.
// Each sum runs over the rows in ascending order, in one accumulator, and so has the same bits however many rows of `a`
// and panels are multiplied at once.
#pragma once

#include "simd/float_lanes.h"

namespace lazygguf::LAZY_ISA {

constexpr int PANEL = float_lanes::BLOCK_VECS * float_lanes::LANES;

// Floats from a panel to the next one, of a tile with so many rows.
constexpr int panel_stride(int n_rows) { return n_rows * PANEL; }
// Whole vectors for n columns.
constexpr int vecs_of(int n) { return (n + float_lanes::LANES - 1) / float_lanes::LANES; }
// Floats of a tile with n_rows rows and so many columns, its last panel whole.
constexpr int tile_size(int n_rows, int n_columns) { return (n_columns + PANEL - 1) / PANEL * panel_stride(n_rows); }

struct product_args {
    float * c; // [m, columns]: rows `ldc` floats apart
    int ldc;
    const float * a; // [m, n_in]: rows `lda` floats apart
    int lda;
    const float * b; // panels `ldb` floats apart, from the first row that counts
    int ldb;
    int n_in;
    bool adds; // to what c holds
};

// M rows times the first NV vectors of b, of one panel or of several.
template <int M, int NV> void product_block(const product_args & x) {
    using namespace float_lanes;
    vec acc[M][NV];
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
        for (int j = 0; j < NV; ++j) {
            acc[i][j] = x.adds ? load(x.c + i * x.ldc + j * LANES) : zeros();
        }
    }
    const float * a = x.a;
    const float * b = x.b;
    const int lda = x.lda;
    const int ldb = x.ldb;
    for (int k = 0; k < x.n_in; ++k, ++a, b += PANEL) {
        vec row[NV];
#pragma GCC unroll 8
        for (int j = 0; j < NV; ++j) {
            row[j] = load(b + j / BLOCK_VECS * ldb + j % BLOCK_VECS * LANES);
        }
#pragma GCC unroll 8
        for (int i = 0; i < M; ++i) {
            const vec factor = splat(a[i * lda]);
#pragma GCC unroll 8
            for (int j = 0; j < NV; ++j) {
                acc[i][j] = mul_add(factor, row[j], acc[i][j]);
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
        for (int j = 0; j < NV; ++j) {
            store(x.c + i * x.ldc + j * LANES, acc[i][j]);
        }
    }
}

// Multiplies blocks of NV vectors while there are as many; then those that are left in smaller ones.
template <int M, int NV> void product_vecs(product_args x, int n_vecs) {
    using namespace float_lanes;
    for (; n_vecs >= NV; n_vecs -= NV) {
        product_block<M, NV>(x);
        x.c += NV * LANES;
        x.b += NV >= BLOCK_VECS ? NV / BLOCK_VECS * x.ldb : NV * LANES;
    }
    if constexpr (NV > 1) {
        product_vecs<M, NV / 2>(x, n_vecs);
    }
}

// c [m, n_vecs * LANES] = (adds ? c : 0) + a [m, n_in] * b, with m rows, at most BLOCK_ROWS. With few rows several
// panels are multiplied at once: each sum waits for itself, so that many must be under way.
inline void product(const product_args & x, int m, int n_vecs) {
    static_assert(float_lanes::BLOCK_ROWS == 6, "the cases");
    constexpr int NV = float_lanes::BLOCK_VECS;
    switch (m) {
        case 1: return product_vecs<1, 8>(x, n_vecs);
        case 2: return product_vecs<2, NV == 2 ? 4 : 8>(x, n_vecs);
        case 3: return product_vecs<3, 4>(x, n_vecs);
        case 4: return product_vecs<4, NV>(x, n_vecs);
        case 5: return product_vecs<5, NV>(x, n_vecs);
        default: return product_vecs<6, NV>(x, n_vecs);
    }
}

} // namespace lazygguf::LAZY_ISA
