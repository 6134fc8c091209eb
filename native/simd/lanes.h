// lanes.h: one vector register full of matrix rows.
//
// A lane is a row of a matrix. Owns the instructions that differ between instruction sets; matmul.cpp and weight_tile.h
// are written in these words. `ints` holds four bytes of each row, or one 32-bit integer; `floats` one float of each.
#pragma once

#include <cstdint>
#include <cstring>

#include <ggml.h>

#include "simd/float_lanes.h"

namespace lazygguf::LAZY_ISA {

constexpr int N_LANES = float_lanes::LANES;
using floats = float_lanes::vec;
using float_lanes::load;
using float_lanes::mul;
using float_lanes::mul_add;
using float_lanes::splat;
using float_lanes::store;
using float_lanes::sub;
#if LAZY_HAS_HALVES
using float_lanes::load_halves;
#endif

#if defined(__AVX512F__)

constexpr int GROUP_ROWS = 8; // rows multiplied at once: as many as the registers hold
using ints = __m512i;

LAZY_INLINE ints load_ints(const char * p) { return _mm512_loadu_si512(p); }
LAZY_INLINE ints splat(int32_t x) { return _mm512_set1_epi32(x); }
LAZY_INLINE ints splat_bytes(int x) { return _mm512_set1_epi8(static_cast<char>(x)); }
LAZY_INLINE ints bit_and(ints a, ints b) { return _mm512_and_si512(a, b); }
LAZY_INLINE ints bit_or(ints a, ints b) { return _mm512_or_si512(a, b); }
LAZY_INLINE ints bit_xor(ints a, ints b) { return _mm512_xor_si512(a, b); }
template <int n> LAZY_INLINE ints shift_right(ints x) { return _mm512_srli_epi32(x, n); }
template <int n> LAZY_INLINE ints shift_left(ints x) { return _mm512_slli_epi32(x, n); }
template <int n> LAZY_INLINE ints shift_right_signed(ints x) { return _mm512_srai_epi32(x, n); }

LAZY_INLINE floats to_floats(ints x) { return _mm512_cvtepi32_ps(x); }
LAZY_INLINE ints load_short_ints(const char * p) { // without sign
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
}
LAZY_INLINE floats load_brain_halves(const char * p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(load_short_ints(p), 16));
}

#elif defined(__AVX2__)

constexpr int GROUP_ROWS = 6;
using ints = __m256i;

LAZY_INLINE ints load_ints(const char * p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)); }
LAZY_INLINE ints splat(int32_t x) { return _mm256_set1_epi32(x); }
LAZY_INLINE ints splat_bytes(int x) { return _mm256_set1_epi8(static_cast<char>(x)); }
LAZY_INLINE ints bit_and(ints a, ints b) { return _mm256_and_si256(a, b); }
LAZY_INLINE ints bit_or(ints a, ints b) { return _mm256_or_si256(a, b); }
LAZY_INLINE ints bit_xor(ints a, ints b) { return _mm256_xor_si256(a, b); }
template <int n> LAZY_INLINE ints shift_right(ints x) { return _mm256_srli_epi32(x, n); }
template <int n> LAZY_INLINE ints shift_left(ints x) { return _mm256_slli_epi32(x, n); }
template <int n> LAZY_INLINE ints shift_right_signed(ints x) { return _mm256_srai_epi32(x, n); }

LAZY_INLINE floats to_floats(ints x) { return _mm256_cvtepi32_ps(x); }
LAZY_INLINE ints load_short_ints(const char * p) { // without sign
    return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
}
LAZY_INLINE floats load_brain_halves(const char * p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(load_short_ints(p), 16));
}

#elif defined(__aarch64__)

constexpr int GROUP_ROWS = 6;
using ints = int32x4_t;

LAZY_INLINE ints load_ints(const char * p) {
    return vreinterpretq_s32_s8(vld1q_s8(reinterpret_cast<const int8_t *>(p)));
}
LAZY_INLINE ints splat(int32_t x) { return vdupq_n_s32(x); }
LAZY_INLINE ints splat_bytes(int x) { return vreinterpretq_s32_s8(vdupq_n_s8(static_cast<int8_t>(x))); }
LAZY_INLINE ints bit_and(ints a, ints b) { return vandq_s32(a, b); }
LAZY_INLINE ints bit_or(ints a, ints b) { return vorrq_s32(a, b); }
LAZY_INLINE ints bit_xor(ints a, ints b) { return veorq_s32(a, b); }
template <int n> LAZY_INLINE ints shift_right(ints x) {
    return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(x), vdupq_n_s32(-n)));
}
template <int n> LAZY_INLINE ints shift_left(ints x) { return vshlq_s32(x, vdupq_n_s32(n)); }
template <int n> LAZY_INLINE ints shift_right_signed(ints x) { return vshlq_s32(x, vdupq_n_s32(-n)); }

LAZY_INLINE floats to_floats(ints x) { return vcvtq_f32_s32(x); }
LAZY_INLINE ints load_short_ints(const char * p) { // without sign
    return vreinterpretq_s32_u32(vmovl_u16(vld1_u16(reinterpret_cast<const uint16_t *>(p))));
}
LAZY_INLINE floats load_brain_halves(const char * p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(reinterpret_cast<const uint16_t *>(p)), 16));
}

#else // no vector instructions that could be relied on: what the compiler makes of four numbers

constexpr int GROUP_ROWS = 4;
using ints = int32_t __attribute__((vector_size(16)));
using unsigned_ints = uint32_t __attribute__((vector_size(16)));

LAZY_INLINE ints load_ints(const char * p) {
    ints x;
    std::memcpy(&x, p, sizeof x);
    return x;
}
LAZY_INLINE ints splat(int32_t x) { return x - ints{}; }
LAZY_INLINE ints splat_bytes(int x) { return splat(static_cast<int32_t>(0x01010101U * static_cast<uint8_t>(x))); }
LAZY_INLINE ints bit_and(ints a, ints b) { return a & b; }
LAZY_INLINE ints bit_or(ints a, ints b) { return a | b; }
LAZY_INLINE ints bit_xor(ints a, ints b) { return a ^ b; }
template <int n> LAZY_INLINE ints shift_right(ints x) {
    return reinterpret_cast<ints>(reinterpret_cast<unsigned_ints>(x) >> n);
}
template <int n> LAZY_INLINE ints shift_left(ints x) {
    return reinterpret_cast<ints>(reinterpret_cast<unsigned_ints>(x) << n);
}
template <int n> LAZY_INLINE ints shift_right_signed(ints x) { return x >> n; }

LAZY_INLINE floats to_floats(ints x) { return __builtin_convertvector(x, floats); }
LAZY_INLINE floats load_halves(const char * p) {
    ggml_fp16_t x[N_LANES];
    std::memcpy(x, p, sizeof x);
    return floats{ggml_fp16_to_fp32(x[0]), ggml_fp16_to_fp32(x[1]), ggml_fp16_to_fp32(x[2]), ggml_fp16_to_fp32(x[3])};
}
LAZY_INLINE ints load_short_ints(const char * p) { // without sign
    uint16_t x[N_LANES];
    std::memcpy(x, p, sizeof x);
    return ints{x[0], x[1], x[2], x[3]};
}
LAZY_INLINE floats load_brain_halves(const char * p) { return reinterpret_cast<floats>(load_short_ints(p) << 16); }

#endif

// ---- products of bytes ----

// Codes of weights are 0 to MAX_CODE, or with MAX_CODE == SIGNED_CODES -128 to 127; bytes of rows are -127 to 127. Sums
// are exact in every instruction set.
constexpr int SIGNED_CODES = 255;

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)

// The multiplication takes unsigned bytes of weights: signed ones are stored with 128 added.
constexpr bool HAS_SIGNED_CODES = false;
// Rows that are multiplied at once, of a group: their sums must fit the registers beside everything else.
template <int MAX_CODE> constexpr int ROWS_AT_ONCE = GROUP_ROWS;

// sums[t] = w[J0..J1) times the bytes of row t, of N rows: x holds STRIDE rows, group by group
template <int MAX_CODE, int J0, int J1, int N, int STRIDE>
LAZY_INLINE void sum_products(const ints * w, const int32_t * x, ints * sums) {
    for (int t = 0; t < N; ++t) {
        sums[t] = splat(0);
    }
#pragma GCC unroll 8
    for (int j = J0; j < J1; ++j) {
#pragma GCC unroll 8
        for (int t = 0; t < N; ++t) {
#if defined(__AVX512VNNI__)
            sums[t] = _mm512_dpbusd_epi32(sums[t], w[j], splat(x[j * STRIDE + t]));
#else
            sums[t] = _mm256_dpbusd_avx_epi32(sums[t], w[j], splat(x[j * STRIDE + t]));
#endif
        }
    }
}

#elif defined(__AVX2__)

constexpr bool HAS_SIGNED_CODES = true;
template <int MAX_CODE> constexpr int ROWS_AT_ONCE = MAX_CODE <= 15 ? GROUP_ROWS : GROUP_ROWS / 2;

// Two products each are added to 16 bits. As many of those sums as fit are added there, before they become 32 bits.
template <int MAX_CODE, int J0, int J1, int N, int STRIDE>
LAZY_INLINE void sum_products(const ints * w, const int32_t * x, ints * sums) {
    constexpr int MOST = MAX_CODE == SIGNED_CODES ? 1 : INT16_MAX / (2 * 127 * MAX_CODE);
    constexpr int TERMS = MOST >= 8 ? 8 : MOST >= 4 ? 4 : MOST >= 2 ? 2 : 1;
    const ints ones = _mm256_set1_epi16(1);
    ints pairs[N];
#pragma GCC unroll 8
    for (int j = J0; j < J1; ++j) {
        const bool is_first = (j - J0) % TERMS == 0;
        const bool is_last = (j - J0) % TERMS == TERMS - 1 || j == J1 - 1;
        const ints sizes = MAX_CODE == SIGNED_CODES ? _mm256_abs_epi8(w[j]) : w[j];
#pragma GCC unroll 8
        for (int t = 0; t < N; ++t) {
            const ints x_t = splat(x[j * STRIDE + t]);
            const ints two = _mm256_maddubs_epi16(sizes, MAX_CODE == SIGNED_CODES ? _mm256_sign_epi8(x_t, w[j]) : x_t);
            pairs[t] = is_first ? two : _mm256_add_epi16(pairs[t], two);
            asm("" : "+x"(pairs[t])); // GCC would put off all additions, for which there are not enough registers
            if (is_last) {
                const ints four = _mm256_madd_epi16(pairs[t], ones);
                sums[t] = j - J0 < TERMS ? four : _mm256_add_epi32(sums[t], four);
            }
        }
    }
}

#else

constexpr bool HAS_SIGNED_CODES = true;
template <int MAX_CODE> constexpr int ROWS_AT_ONCE = GROUP_ROWS;

LAZY_INLINE ints add_products(ints sum, ints w, ints x) {
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(sum, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(x));
#else
    int8_t a[4 * N_LANES];
    int8_t b[4 * N_LANES];
    int32_t out[N_LANES];
    std::memcpy(a, &w, sizeof a);
    std::memcpy(b, &x, sizeof b);
    std::memcpy(out, &sum, sizeof out);
    for (int i = 0; i < N_LANES; ++i) {
        for (int k = 4 * i; k < 4 * i + 4; ++k) {
            out[i] += a[k] * b[k];
        }
    }
    std::memcpy(&sum, out, sizeof out);
    return sum;
#endif
}

template <int MAX_CODE, int J0, int J1, int N, int STRIDE>
LAZY_INLINE void sum_products(const ints * w, const int32_t * x, ints * sums) {
    for (int t = 0; t < N; ++t) {
        sums[t] = splat(0);
    }
    for (int j = J0; j < J1; ++j) {
        for (int t = 0; t < N; ++t) {
            sums[t] = add_products(sums[t], w[j], splat(x[j * STRIDE + t]));
        }
    }
}

#endif

// Sixteen bytes, each of which four bits of the codes choose.
LAZY_INLINE ints look_up(const int8_t * table, ints codes) {
#if defined(__AVX512F__)
    const __m128i t = _mm_loadu_si128(reinterpret_cast<const __m128i *>(table));
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(t), codes);
#elif defined(__AVX2__)
    const __m128i t = _mm_loadu_si128(reinterpret_cast<const __m128i *>(table));
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(t), codes);
#elif defined(__aarch64__)
    return vreinterpretq_s32_s8(vqtbl1q_s8(vld1q_s8(table), vreinterpretq_u8_s32(codes)));
#else
    int8_t bytes[4 * N_LANES];
    std::memcpy(bytes, &codes, sizeof bytes);
    for (int8_t & b : bytes) {
        b = table[b];
    }
    std::memcpy(&codes, bytes, sizeof bytes);
    return codes;
#endif
}

} // namespace lazygguf::LAZY_ISA
