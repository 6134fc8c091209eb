// kv_tile.h: K/V rows of one head, unpacked to floats in the panels that products.h multiplies.
//
// The rows of a tile are entries of kv_order, which names cache rows by ascending position: a token's place in the tile
// is the same whatever cache row it landed in.
#pragma once

#include <ggml.h>

#include "simd/products.h"
#include "simd/scratch.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace lazygguf::LAZY_ISA {

constexpr int TILE = 64; // entries unpacked at once, a multiple of every PANEL
static_assert(TILE % PANEL == 0, "whole panels");

LAZY_INLINE int smaller(int a, int b) { return a < b ? a : b; }
LAZY_INLINE int larger(int a, int b) { return a > b ? a : b; }

LAZY_INLINE char * at(const ggml_tensor * t, int64_t i1, int64_t i2) {
    return static_cast<char *>(t->data) + static_cast<size_t>(i1) * t->nb[1] + static_cast<size_t>(i2) * t->nb[2];
}

// Entries [begin, begin + n) of one head of K or V.
struct tile_rows {
    const ggml_tensor * t; // [n_embd_head, n_kv, n_head_kv]
    const int32_t * rows;  // kv_order from entry `begin` on
    int n;
    int head;

    const char * row(int i) const { return at(t, rows[i], head); }
};

// Are K's rows transposed as half floats?
#if defined(__AVX2__)
#define LAZY_TRANSPOSES_HALVES 1
#else
#define LAZY_TRANSPOSES_HALVES 0
#endif

#if LAZY_TRANSPOSES_HALVES

// Values [first, first + 8) of 16 entries, F16: transposed as 16 bits, then converted.
LAZY_INLINE void transpose_halves(const ggml_fp16_t * const * rows, int first, float * out) {
    const auto two = [rows, first](int i) {
        const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i *>(rows[i] + first));
        return _mm256_inserti128_si256(_mm256_castsi128_si256(low),
                                       _mm_loadu_si128(reinterpret_cast<const __m128i *>(rows[i + 8] + first)), 1);
    };
    __m256i a[8];
    __m256i b[8];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) { // entries i and i + 4 of each half
        const __m256i x = two(i);
        const __m256i y = two(i + 4);
        a[i] = _mm256_unpacklo_epi16(x, y);
        a[i + 4] = _mm256_unpackhi_epi16(x, y);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) { // 0 with 2, 1 with 3, in the low values and in the high ones
        const int j = i / 2 * 4 + i % 2;
        b[j] = _mm256_unpacklo_epi16(a[j], a[j + 2]);
        b[j + 2] = _mm256_unpackhi_epi16(a[j], a[j + 2]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        const __m256i low = _mm256_unpacklo_epi16(b[2 * i], b[2 * i + 1]);
        const __m256i high = _mm256_unpackhi_epi16(b[2 * i], b[2 * i + 1]);
        float * p = out + (first + 2 * i) * PANEL;
#if defined(__AVX512F__)
        _mm512_storeu_ps(p, _mm512_cvtph_ps(low));
        _mm512_storeu_ps(p + PANEL, _mm512_cvtph_ps(high));
#else
        _mm256_storeu_ps(p, _mm256_cvtph_ps(_mm256_castsi256_si128(low)));
        _mm256_storeu_ps(p + 8, _mm256_cvtph_ps(_mm256_extracti128_si256(low, 1)));
        _mm256_storeu_ps(p + PANEL, _mm256_cvtph_ps(_mm256_castsi256_si128(high)));
        _mm256_storeu_ps(p + PANEL + 8, _mm256_cvtph_ps(_mm256_extracti128_si256(high, 1)));
#endif
    }
}

#endif

// Values [first, first + 4) of 4 entries.
LAZY_INLINE void transpose_floats(const float * const * rows, int first, float * out) {
    float * p = out + first * PANEL;
#if defined(__SSE2__)
    __m128 a = _mm_loadu_ps(rows[0] + first);
    __m128 b = _mm_loadu_ps(rows[1] + first);
    __m128 c = _mm_loadu_ps(rows[2] + first);
    __m128 d = _mm_loadu_ps(rows[3] + first);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps(p, a);
    _mm_storeu_ps(p + PANEL, b);
    _mm_storeu_ps(p + 2 * PANEL, c);
    _mm_storeu_ps(p + 3 * PANEL, d);
#elif defined(__aarch64__)
    const float32x4x2_t ab = vtrnq_f32(vld1q_f32(rows[0] + first), vld1q_f32(rows[1] + first));
    const float32x4x2_t cd = vtrnq_f32(vld1q_f32(rows[2] + first), vld1q_f32(rows[3] + first));
    vst1q_f32(p, vcombine_f32(vget_low_f32(ab.val[0]), vget_low_f32(cd.val[0])));
    vst1q_f32(p + PANEL, vcombine_f32(vget_low_f32(ab.val[1]), vget_low_f32(cd.val[1])));
    vst1q_f32(p + 2 * PANEL, vcombine_f32(vget_high_f32(ab.val[0]), vget_high_f32(cd.val[0])));
    vst1q_f32(p + 3 * PANEL, vcombine_f32(vget_high_f32(ab.val[1]), vget_high_f32(cd.val[1])));
#else
    for (int j = 0; j < 4; ++j) {
        for (int i = 0; i < 4; ++i) {
            p[j * PANEL + i] = rows[i][first + j];
        }
    }
#endif
}

LAZY_INLINE float_lanes::vec load_values(const float * p) { return float_lanes::load(p); }

#if LAZY_HAS_HALVES
LAZY_INLINE float_lanes::vec load_values(const ggml_fp16_t * p) { return float_lanes::load_halves(p); }
#endif

// One row of V to its place in every panel; values past the last one up to a whole vector are zeros.
template <typename T> LAZY_INLINE void spread_row(const T * row, int n_values, float * out) {
    using namespace float_lanes;
    int i = 0;
    for (; i + PANEL <= n_values; i += PANEL, out += panel_stride(TILE)) {
#pragma GCC unroll 4
        for (int j = 0; j < PANEL; j += LANES) {
            store(out + j, load_values(row + i + j));
        }
    }
    for (; i + LANES <= n_values; i += LANES, out += LANES) {
        store(out, load_values(row + i));
    }
    if (i < n_values) {
        T rest[LANES] = {};
        std::memcpy(rest, row + i, static_cast<size_t>(n_values - i) * sizeof(T));
        store(out, load_values(rest));
    }
}

// A row as floats: itself, or converted to `to`.
inline const float * as_floats(const ggml_tensor * t, const char * row, float * to) {
    if (t->type == GGML_TYPE_F32) {
        return reinterpret_cast<const float *>(row);
    }
    int i = 0;
    const int n = static_cast<int>(t->ne[0]);
#if LAZY_HAS_HALVES
    if (t->type == GGML_TYPE_F16) {
        for (; i + float_lanes::LANES <= n; i += float_lanes::LANES) {
            float_lanes::store(to + i, load_values(reinterpret_cast<const ggml_fp16_t *>(row) + i));
        }
        row += static_cast<size_t>(i) * sizeof(ggml_fp16_t);
    }
#endif
    if (i < n) {
        ggml_get_type_traits(t->type)->to_float(row, to + i, n - i);
    }
    return to;
}

// V: [n, n_values] of the tile, in panels of values.
inline void unpack_rows(const tile_rows & in, scratch<float> & buffer, float * out) {
    const int n_values = static_cast<int>(in.t->ne[0]);
#if LAZY_HAS_HALVES
    if (in.t->type == GGML_TYPE_F16) {
        for (int i = 0; i < in.n; ++i) {
            spread_row(reinterpret_cast<const ggml_fp16_t *>(in.row(i)), n_values, out + i * PANEL);
        }
        return;
    }
#endif
    float * floats = buffer.reserve(static_cast<size_t>(n_values));
    for (int i = 0; i < in.n; ++i) {
        spread_row(as_floats(in.t, in.row(i), floats), n_values, out + i * PANEL);
    }
}

// Blocks of N entries, `block` for values that a head has whole and for the rest: rows of T with STEP values at once.
template <typename T, int N, int STEP, typename Block>
LAZY_INLINE void transpose_rows(const T ** rows, int n_values, float * out, Block && block) {
    int i = 0;
    for (; i + STEP <= n_values; i += STEP) {
        block(rows, i, out);
    }
    if (i < n_values) {
        T rest[N][STEP] = {};
        const T * ends[N];
        for (int r = 0; r < N; ++r) {
            std::memcpy(rest[r], rows[r] + i, static_cast<size_t>(n_values - i) * sizeof(T));
            ends[r] = rest[r];
        }
        block(ends, 0, out + i * PANEL);
    }
}

// Rows of an unpacked K tile: a head's values, and the few that make the last block of a transpose whole.
LAZY_INLINE int column_rows(int n_values) { return (n_values + 7) / 8 * 8; }

// K: [n_values, n] of the tile, in panels of entries. What fills the last vector repeats the last entry.
inline void unpack_columns(const tile_rows & in, scratch<float> & buffer, float * out) {
    const int n_values = static_cast<int>(in.t->ne[0]);
    const int stride = panel_stride(column_rows(n_values));
    const int n = vecs_of(in.n) * float_lanes::LANES;
    const auto place = [=](int entry) { return out + entry / PANEL * stride + entry % PANEL; };
#if LAZY_TRANSPOSES_HALVES
    if (in.t->type == GGML_TYPE_F16) {
        const ggml_fp16_t * rows[16];
        for (int first = 0; first < n; first += 16) {
            for (int i = 0; i < 16; ++i) {
                rows[i] = reinterpret_cast<const ggml_fp16_t *>(in.row(smaller(first + i, in.n - 1)));
            }
            transpose_rows<ggml_fp16_t, 16, 8>(rows, n_values, place(first), transpose_halves);
        }
        return;
    }
#endif
    float * floats = buffer.reserve(static_cast<size_t>(4 * n_values));
    const float * rows[4];
    for (int first = 0; first < n; first += 4) {
        for (int i = 0; i < 4; ++i) {
            rows[i] = as_floats(in.t, in.row(smaller(first + i, in.n - 1)), floats + i * n_values);
        }
        transpose_rows<float, 4, 4>(rows, n_values, place(first), transpose_floats);
    }
}

} // namespace lazygguf::LAZY_ISA
