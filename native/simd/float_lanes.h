// float_lanes.h: one vector register full of floats.
//
// Owns the instructions that differ between AVX-512 (16 lanes), AVX2 (8), NEON and all else (4); attention and its
// scores are written in these words. Comparisons and ?: on GCC's own vectors become scalar code where a vector is wider
// than the registers. In max(a, b) a NaN of b comes through.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

// a call would move every register through memory
#define LAZY_INLINE [[gnu::always_inline]] inline
// inlined into a caller with many loops, registers would be given to the wrong ones
#define LAZY_NOINLINE [[gnu::noinline]]

// Is there an instruction for half floats?
#if defined(__AVX2__) || defined(__aarch64__)
#define LAZY_HAS_HALVES 1
#else
#define LAZY_HAS_HALVES 0
#endif

namespace lazygguf::LAZY_ISA::float_lanes {

// A product of matrices keeps BLOCK_ROWS x BLOCK_VECS sums in registers.
#if defined(__AVX512F__)

constexpr int LANES = 16;
constexpr int BLOCK_ROWS = 6;
constexpr int BLOCK_VECS = 4;
using vec = __m512;

LAZY_INLINE vec load(const float * p) { return _mm512_loadu_ps(p); }
LAZY_INLINE void store(float * p, vec x) { _mm512_storeu_ps(p, x); }
LAZY_INLINE vec splat(float x) { return _mm512_set1_ps(x); }
LAZY_INLINE vec add(vec a, vec b) { return _mm512_add_ps(a, b); }
LAZY_INLINE vec sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
LAZY_INLINE vec mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
LAZY_INLINE vec mul_add(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
LAZY_INLINE vec max(vec a, vec b) { return _mm512_max_ps(a, b); }
LAZY_INLINE vec load_halves(const void * p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i *>(p)));
}
// x * 2^n, where n stands in the low bits of `power`
LAZY_INLINE vec scale_by_bits(vec x, vec power) {
    const __m512i n = _mm512_slli_epi32(_mm512_castps_si512(power), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), n));
}

#elif defined(__AVX2__)

constexpr int LANES = 8;
constexpr int BLOCK_ROWS = 6;
constexpr int BLOCK_VECS = 2;
using vec = __m256;

LAZY_INLINE vec load(const float * p) { return _mm256_loadu_ps(p); }
LAZY_INLINE void store(float * p, vec x) { _mm256_storeu_ps(p, x); }
LAZY_INLINE vec splat(float x) { return _mm256_set1_ps(x); }
LAZY_INLINE vec add(vec a, vec b) { return _mm256_add_ps(a, b); }
LAZY_INLINE vec sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
LAZY_INLINE vec mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
LAZY_INLINE vec mul_add(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
LAZY_INLINE vec max(vec a, vec b) { return _mm256_max_ps(a, b); }
LAZY_INLINE vec load_halves(const void * p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i *>(p)));
}
LAZY_INLINE vec scale_by_bits(vec x, vec power) {
    const __m256i n = _mm256_slli_epi32(_mm256_castps_si256(power), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), n));
}

#elif defined(__aarch64__)

constexpr int LANES = 4;
constexpr int BLOCK_ROWS = 6;
constexpr int BLOCK_VECS = 4;
using vec = float32x4_t;

LAZY_INLINE vec load(const float * p) { return vld1q_f32(p); }
LAZY_INLINE void store(float * p, vec x) { vst1q_f32(p, x); }
LAZY_INLINE vec splat(float x) { return vdupq_n_f32(x); }
LAZY_INLINE vec add(vec a, vec b) { return vaddq_f32(a, b); }
LAZY_INLINE vec sub(vec a, vec b) { return vsubq_f32(a, b); }
LAZY_INLINE vec mul(vec a, vec b) { return vmulq_f32(a, b); }
LAZY_INLINE vec mul_add(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); }
LAZY_INLINE vec max(vec a, vec b) { return vmaxq_f32(a, b); }
LAZY_INLINE vec load_halves(const void * p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(static_cast<const uint16_t *>(p))));
}
LAZY_INLINE vec scale_by_bits(vec x, vec power) {
    const uint32x4_t n = vshlq_n_u32(vreinterpretq_u32_f32(power), 23);
    return vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(x), n));
}

#else

constexpr int LANES = 4;
constexpr int BLOCK_ROWS = 6;
constexpr int BLOCK_VECS = 2;
using vec = float __attribute__((vector_size(16)));
using bits = uint32_t __attribute__((vector_size(16)));

LAZY_INLINE vec load(const float * p) {
    vec x;
    std::memcpy(&x, p, sizeof x);
    return x;
}
LAZY_INLINE void store(float * p, vec x) { std::memcpy(p, &x, sizeof x); }
LAZY_INLINE vec splat(float x) { return vec{x, x, x, x}; }
LAZY_INLINE vec add(vec a, vec b) { return a + b; }
LAZY_INLINE vec sub(vec a, vec b) { return a - b; }
LAZY_INLINE vec mul(vec a, vec b) { return a * b; }
LAZY_INLINE vec mul_add(vec a, vec b, vec c) { return a * b + c; }
LAZY_INLINE vec max(vec a, vec b) { return a > b ? a : b; }
LAZY_INLINE vec scale_by_bits(vec x, vec power) {
    return reinterpret_cast<vec>(reinterpret_cast<bits>(x) + (reinterpret_cast<bits>(power) << 23));
}

#endif

LAZY_INLINE vec zeros() { return splat(0.0F); }

LAZY_INLINE float larger(float a, float b) { return a > b ? a : b; } // b where either is NaN

// The lanes' sum and their maximum: halves are taken together until one is left.
#if defined(__AVX2__)
LAZY_INLINE __m128 low_half(__m256 x) { return _mm256_castps256_ps128(x); }
LAZY_INLINE __m128 high_half(__m256 x) { return _mm256_extractf128_ps(x, 1); }
LAZY_INLINE float sum_of(__m128 x) {
    const __m128 two = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
LAZY_INLINE float max_of(__m128 x) {
    const __m128 two = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
LAZY_INLINE float sum_of(__m256 x) { return sum_of(_mm_add_ps(low_half(x), high_half(x))); }
LAZY_INLINE float max_of(__m256 x) { return max_of(_mm_max_ps(low_half(x), high_half(x))); }
#if defined(__AVX512F__)
LAZY_INLINE __m256 low_half(__m512 x) { return _mm512_castps512_ps256(x); }
LAZY_INLINE __m256 high_half(__m512 x) { return _mm512_extractf32x8_ps(x, 1); }
LAZY_INLINE float sum_of(__m512 x) { return sum_of(_mm256_add_ps(low_half(x), high_half(x))); }
LAZY_INLINE float max_of(__m512 x) { return max_of(_mm256_max_ps(low_half(x), high_half(x))); }
#endif
#else
LAZY_INLINE float sum_of(vec x) {
    float lanes[LANES];
    store(lanes, x);
    return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
}
LAZY_INLINE float max_of(vec x) {
    float lanes[LANES];
    store(lanes, x);
    return larger(larger(lanes[0], lanes[2]), larger(lanes[1], lanes[3]));
}
#endif

// 2^x for x <= 0: 2^n times a polynomial of the rest, 1 for 0. Relative error below 2e-7; below -125: about 2^-125.
LAZY_INLINE vec exp2_of(vec x) {
    const vec clamped = max(splat(-125.0F), x);
    const vec magic = splat(12582912.0F); // 1.5 * 2^23: adding it rounds to an integer, which its low bits hold
    const vec rounded = add(clamped, magic);
    const vec rest = sub(clamped, sub(rounded, magic));
    vec p = splat(0.00132647273F);
    p = mul_add(p, rest, splat(0.00967151299F));
    p = mul_add(p, rest, splat(0.0555073358F));
    p = mul_add(p, rest, splat(0.240222424F));
    p = mul_add(p, rest, splat(0.693147004F));
    p = mul_add(p, rest, splat(1.0F));
    return scale_by_bits(p, rounded);
}

constexpr float LOG2_E = 1.44269504F;

// cap * tanh(x / cap)
LAZY_INLINE vec soft_capped(vec x, float cap) {
    const vec t = mul(x, splat(1.0F / cap));
    const vec size = max(sub(zeros(), t), t);
    const vec e = exp2_of(mul(size, splat(-2.0F * LOG2_E))); // tanh(size) = (1 - e) / (1 + e)
    float sign[LANES];
    float num[LANES];
    float den[LANES];
    store(sign, t);
    store(num, sub(splat(cap), mul(e, splat(cap))));
    store(den, add(splat(1.0F), e));
    for (int i = 0; i < LANES; ++i) {
        num[i] = (sign[i] < 0.0F ? -num[i] : num[i]) / den[i];
    }
    return load(num);
}

} // namespace lazygguf::LAZY_ISA::float_lanes
