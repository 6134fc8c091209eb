// lanes.h: one vector register full of weight rows, on CPUs that multiply bytes.
//
// A lane is a row of a matrix. Owns the few instructions that differ between AVX-512 VNNI (16 lanes) and AVX2 (8), and
// nothing else: matmul.cpp is written in these words. HAS_LANES is 0 where neither is there.
#pragma once

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define HAS_LANES 1
#define HAS_LANES_512 1
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define HAS_LANES 1
#define HAS_LANES_512 0
#else
#define HAS_LANES 0
#endif

#if HAS_LANES

#include <cstdint>
#include <cstring>

#include <immintrin.h>

// a call would move every register through memory
#define LAZY_INLINE [[gnu::always_inline]] inline

namespace lazygguf::LAZY_ISA {

LAZY_INLINE uint32_t load_u32(const char * p) {
    uint32_t x;
    std::memcpy(&x, p, sizeof x);
    return x;
}

LAZY_INLINE short load_i16(const char * p) {
    short x;
    std::memcpy(&x, p, sizeof x);
    return x;
}

// Eight 16-bit values, `stride` bytes apart.
LAZY_INLINE __m128i gather_i16(const char * p, size_t stride) {
    const char * q = p + 4 * stride;
    return _mm_setr_epi16(load_i16(p), load_i16(p + stride), load_i16(p + 2 * stride), load_i16(p + 3 * stride),
                          load_i16(q), load_i16(q + stride), load_i16(q + 2 * stride), load_i16(q + 3 * stride));
}

LAZY_INLINE __m128i load_128(const char * p) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(p)); }
LAZY_INLINE __m256i load_256(const char * p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)); }

// 32 bytes of row i, or on 16 lanes of the rows i and i + 8, whose bytes are at p and p + 8 * stride.
#if HAS_LANES_512

constexpr int N_LANES = 16;
constexpr int PREFETCH_LEVEL = 2;   // the first level is full of the tile at hand
constexpr int GROUP_ROWS = 8;       // rows multiplied at once: as many as the registers hold
constexpr bool HAS_BYTE_DOT = true; // no 16-bit sum between, which could overflow
using ints = __m512i;
using floats = __m512;

LAZY_INLINE ints splat(int32_t x) { return _mm512_set1_epi32(x); }
LAZY_INLINE floats splat(float x) { return _mm512_set1_ps(x); }
LAZY_INLINE floats mul(floats a, floats b) { return _mm512_mul_ps(a, b); }
LAZY_INLINE floats sub(floats a, floats b) { return _mm512_sub_ps(a, b); }
LAZY_INLINE floats mul_add(floats a, floats b, floats c) { return _mm512_fmadd_ps(a, b, c); }
LAZY_INLINE floats to_floats(ints x) { return _mm512_cvtepi32_ps(x); }
LAZY_INLINE void store(float * p, floats x) { _mm512_storeu_ps(p, x); }
LAZY_INLINE ints bit_and(ints a, ints b) { return _mm512_and_si512(a, b); }
LAZY_INLINE ints bit_or(ints a, ints b) { return _mm512_or_si512(a, b); }
LAZY_INLINE ints bit_xor(ints a, ints b) { return _mm512_xor_si512(a, b); }
LAZY_INLINE ints splat_bytes(int x) { return _mm512_set1_epi8(static_cast<char>(x)); }
LAZY_INLINE ints shift_right(ints x, int n) { return _mm512_srl_epi32(x, _mm_cvtsi32_si128(n)); }
LAZY_INLINE ints shift_left(ints x, int n) { return _mm512_sll_epi32(x, _mm_cvtsi32_si128(n)); }
LAZY_INLINE ints shift_right_signed(ints x, int n) { return _mm512_sra_epi32(x, _mm_cvtsi32_si128(n)); }

// acc + the sum of four products: unsigned bytes of a with signed bytes of b, lane by lane
LAZY_INLINE ints dot(ints acc, ints a, ints b) { return _mm512_dpbusd_epi32(acc, a, b); }

// 32-bit values, `stride` bytes apart; two at a time in integer registers, since the vector units have no time
LAZY_INLINE ints gather(const char * p, size_t stride) {
    const auto two = [p, stride](size_t i) {
        const uint64_t high = load_u32(p + (i + 1) * stride);
        return static_cast<int64_t>(load_u32(p + i * stride) | high << 32);
    };
    return _mm512_setr_epi64(two(0), two(2), two(4), two(6), two(8), two(10), two(12), two(14));
}

LAZY_INLINE floats gather_halves(const char * p, size_t stride) {
    return _mm512_cvtph_ps(_mm256_set_m128i(gather_i16(p + 8 * stride, stride), gather_i16(p, stride)));
}

LAZY_INLINE floats halves_of(ints low_16) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(low_16)); }

// Pairs of half floats, `stride` bytes apart: the first ones and the second ones
LAZY_INLINE void gather_half_pairs(const char * p, size_t stride, floats & first, floats & second) {
    const ints pairs = gather(p, stride);
    first = halves_of(pairs);
    second = halves_of(shift_right(pairs, 16));
}

LAZY_INLINE ints load_bytes(const char * p, size_t stride) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(load_256(p)), load_256(p + 8 * stride), 1);
}

// 16 bytes as 32 half bytes: the low ones, then the high ones
LAZY_INLINE ints load_nibbles(const char * p, size_t stride) {
    const __m256i both = _mm256_set_m128i(load_128(p + 8 * stride), load_128(p));
    const ints twice =
        _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 1, 0, 1, 2, 3, 2, 3), _mm512_castsi256_si512(both));
    return bit_and(_mm512_srlv_epi64(twice, _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4)), splat_bytes(15));
}

// 32 bits as 32 bytes of 0 or 16
LAZY_INLINE ints load_fifth_bits(const char * p, size_t stride) {
    const uint64_t bits = load_u32(p) | static_cast<uint64_t>(load_u32(p + 8 * stride)) << 32;
    return _mm512_maskz_mov_epi8(bits, splat_bytes(16));
}

// rows[8] of 8 four-byte groups -> columns[8]: group j of every row
LAZY_INLINE void transpose(const ints * rows, ints * columns) {
    ints t[8];
    ints u[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        u[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        u[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        u[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        u[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    const ints low = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    const ints high = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    for (int i = 0; i < 4; ++i) {
        columns[i] = _mm512_permutex2var_epi64(u[i], low, u[i + 4]);
        columns[i + 4] = _mm512_permutex2var_epi64(u[i], high, u[i + 4]);
    }
}

#else

constexpr int N_LANES = 8;
constexpr int PREFETCH_LEVEL = 3;
constexpr int GROUP_ROWS = 4;
constexpr bool HAS_BYTE_DOT = false;
using ints = __m256i;
using floats = __m256;

LAZY_INLINE ints splat(int32_t x) { return _mm256_set1_epi32(x); }
LAZY_INLINE floats splat(float x) { return _mm256_set1_ps(x); }
LAZY_INLINE floats mul(floats a, floats b) { return _mm256_mul_ps(a, b); }
LAZY_INLINE floats sub(floats a, floats b) { return _mm256_sub_ps(a, b); }
LAZY_INLINE floats mul_add(floats a, floats b, floats c) { return _mm256_fmadd_ps(a, b, c); }
LAZY_INLINE floats to_floats(ints x) { return _mm256_cvtepi32_ps(x); }
LAZY_INLINE void store(float * p, floats x) { _mm256_storeu_ps(p, x); }
LAZY_INLINE ints bit_and(ints a, ints b) { return _mm256_and_si256(a, b); }
LAZY_INLINE ints bit_or(ints a, ints b) { return _mm256_or_si256(a, b); }
LAZY_INLINE ints bit_xor(ints a, ints b) { return _mm256_xor_si256(a, b); }
LAZY_INLINE ints splat_bytes(int x) { return _mm256_set1_epi8(static_cast<char>(x)); }
LAZY_INLINE ints shift_right(ints x, int n) { return _mm256_srl_epi32(x, _mm_cvtsi32_si128(n)); }
LAZY_INLINE ints shift_left(ints x, int n) { return _mm256_sll_epi32(x, _mm_cvtsi32_si128(n)); }
LAZY_INLINE ints shift_right_signed(ints x, int n) { return _mm256_sra_epi32(x, _mm_cvtsi32_si128(n)); }

// The products are added in pairs to 16 bits first: bytes of a above 128 would overflow them.
LAZY_INLINE ints dot(ints acc, ints a, ints b) {
    const ints pairs = _mm256_maddubs_epi16(a, b);
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

LAZY_INLINE ints gather(const char * p, size_t stride) {
    const ints lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_i32gather_epi32(reinterpret_cast<const int *>(p),
                                  _mm256_mullo_epi32(lanes, splat(static_cast<int32_t>(stride))), 1);
}

LAZY_INLINE floats gather_halves(const char * p, size_t stride) { return _mm256_cvtph_ps(gather_i16(p, stride)); }

LAZY_INLINE floats halves_of(ints low_16) {
    const __m256i packed = _mm256_packus_epi32(bit_and(low_16, splat(0xffff)), _mm256_setzero_si256());
    return _mm256_cvtph_ps(_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
}

LAZY_INLINE void gather_half_pairs(const char * p, size_t stride, floats & first, floats & second) {
    first = gather_halves(p, stride);
    second = gather_halves(p + 2, stride);
}

LAZY_INLINE ints load_bytes(const char * p, size_t /*stride*/) { return load_256(p); }

LAZY_INLINE ints load_nibbles(const char * p, size_t /*stride*/) {
    const __m128i both = load_128(p);
    return bit_and(_mm256_set_m128i(_mm_srli_epi16(both, 4), both), splat_bytes(15));
}

LAZY_INLINE ints load_fifth_bits(const char * p, size_t /*stride*/) {
    const ints spread = _mm256_shuffle_epi8(
        splat(static_cast<int32_t>(load_u32(p))),
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303)); // byte n/8 for bit n
    const ints bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
    return bit_and(_mm256_cmpeq_epi8(bit_and(spread, bit), bit), splat_bytes(16));
}

LAZY_INLINE void transpose(const ints * rows, ints * columns) {
    ints t[8];
    ints u[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(rows[i], rows[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        u[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        u[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        u[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        u[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; ++i) {
        columns[i] = _mm256_permute2x128_si256(u[i], u[i + 4], 0x20);
        columns[i + 4] = _mm256_permute2x128_si256(u[i], u[i + 4], 0x31);
    }
}

#endif

} // namespace lazygguf::LAZY_ISA

#endif
