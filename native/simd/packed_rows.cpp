// packed_rows.cpp: rows rounded to bytes, and rows of floats put beside each other.

#include "simd/packed_rows.h"

namespace lazygguf::LAZY_ISA {
namespace {

// A block of a row as bytes: 32 of them, rounded to 1 / 127 of the largest magnitude, and their sums.
struct rounded_block {
    int32_t q[BLOCK / 4]; // four bytes each
    int sum_low;          // of the first 16
    int sum_high;
    uint32_t largest; // the bits of the largest magnitude: they order like magnitudes, and Inf and NaN come out largest
};

constexpr uint32_t INF_BITS = 0x7f800000U;

// What a value is multiplied with; 0 where all are 0, or one is not finite.
float inverse_of(uint32_t largest_bits) {
    float largest;
    std::memcpy(&largest, &largest_bits, sizeof largest);
    return largest_bits < INF_BITS && largest > 0.0F ? 127.0F / largest : 0.0F;
}

#if defined(__AVX2__)

int sum_of(__m256i a, __m256i b) {
    const __m256i both = _mm256_add_epi32(a, b);
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
}

rounded_block round_block(const float * x) {
    rounded_block out;
    __m256 values[4];
    __m256i largest = _mm256_setzero_si256();
    for (int i = 0; i < 4; ++i) {
        values[i] = _mm256_loadu_ps(x + 8 * i);
        const __m256i size = _mm256_and_si256(_mm256_castps_si256(values[i]), _mm256_set1_epi32(0x7fffffff));
        largest = _mm256_max_epi32(largest, size);
    }
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1));
    out.largest = static_cast<uint32_t>(_mm_cvtsi128_si32(four));
    const __m256 inverse = _mm256_set1_ps(inverse_of(out.largest));
    __m256i whole[4];
    for (int i = 0; i < 4; ++i) {
        whole[i] = _mm256_cvtps_epi32(_mm256_mul_ps(values[i], inverse)); // to the nearest
    }
    out.sum_low = sum_of(whole[0], whole[1]);
    out.sum_high = sum_of(whole[2], whole[3]);
    const __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(whole[0], whole[1]), _mm256_packs_epi32(whole[2], whole[3]));
    // packing works on each half of a register
    const __m256i ordered = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(out.q), ordered);
    return out;
}

#else

rounded_block round_block(const float * x) {
    constexpr float ROUND = 12582912.0F; // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
    rounded_block out = {};
    uint32_t bits[BLOCK];
    std::memcpy(bits, x, sizeof bits);
    for (const uint32_t b : bits) {
        const uint32_t size = b & 0x7fffffffU;
        out.largest = size > out.largest ? size : out.largest;
    }
    const float inverse = inverse_of(out.largest);
    float shifted[BLOCK];
    int32_t whole[BLOCK];
    for (int i = 0; i < BLOCK; ++i) {
        shifted[i] = (out.largest < INF_BITS ? x[i] * inverse : 0.0F) + ROUND;
    }
    std::memcpy(whole, shifted, sizeof whole);
    int8_t bytes[BLOCK];
    for (int i = 0; i < BLOCK; ++i) {
        whole[i] -= 0x4b400000;
        bytes[i] = static_cast<int8_t>(whole[i]);
    }
    for (int i = 0; i < BLOCK / 2; ++i) {
        out.sum_low += whole[i];
        out.sum_high += whole[i + BLOCK / 2];
    }
    std::memcpy(out.q, bytes, sizeof bytes);
    return out;
}

#endif

// Row t of n, columns of one block.
void pack_block(const float * x, int32_t * block, int n, int t) {
    const rounded_block rounded = round_block(x);
    float largest;
    std::memcpy(&largest, &rounded.largest, sizeof largest);
    const float d = rounded.largest < INF_BITS ? largest / 127.0F : __builtin_nanf("");
    for (int j = 0; j < BLOCK / 4; ++j) {
        block[j * n + t] = rounded.q[j];
    }
    const float values[] = {d, d * static_cast<float>(rounded.sum_low + rounded.sum_high),
                            d * static_cast<float>(rounded.sum_low)};
    for (int i = 0; i < 3; ++i) {
        std::memcpy(block + (8 + i) * n + t, values + i, sizeof(float));
    }
}

const float * row_of(const ggml_tensor * x, int i) {
    return reinterpret_cast<const float *>(static_cast<const char *>(x->data) + static_cast<size_t>(i) * x->nb[1]);
}

} // namespace

int64_t packed_size(int64_t n_in, int64_t n_rows, bool as_floats) {
    return n_rows * (as_floats ? n_in : n_in / BLOCK * ROW_WORDS) * static_cast<int64_t>(sizeof(float));
}

void pack_bytes(ggml_tensor * dst, int ith, int nth, void * /*unused*/) {
    const ggml_tensor * x = dst->src[0];
    const packed_rows packed = {static_cast<char *>(dst->data), x->ne[0], static_cast<int>(x->ne[1])};
    // a unit is a row's columns from one thread's share of the blocks: few rows are work for every thread too
    const int n_parts = packed.n_groups() >= nth ? 1 : nth;
    for (int u = ith; u < packed.n_groups() * n_parts; u += nth) {
        const int g = u / n_parts;
        const int begin = packed.n_blocks() * (u % n_parts) / n_parts;
        const int end = packed.n_blocks() * (u % n_parts + 1) / n_parts;
        const int n = packed.count(g);
        for (int t = 0; t < n; ++t) {
            const float * row = row_of(x, g * GROUP_ROWS + t);
            for (int b = begin; b < end; ++b) {
                pack_block(row + b * BLOCK, packed.blocks(g) + b * n * ROW_WORDS, n, t);
            }
        }
    }
}

void pack_floats(ggml_tensor * dst, int ith, int nth, void * /*unused*/) {
    const ggml_tensor * x = dst->src[0];
    const packed_rows packed = {static_cast<char *>(dst->data), x->ne[0], static_cast<int>(x->ne[1])};
    for (int g = ith; g < packed.n_groups(); g += nth) {
        const int n = packed.count(g);
        float * out = packed.columns(g);
        for (int t = 0; t < n; ++t) {
            const float * row = row_of(x, g * GROUP_ROWS + t);
            for (int64_t i = 0; i < x->ne[0]; ++i) {
                out[i * n + t] = row[i];
            }
        }
    }
}

} // namespace lazygguf::LAZY_ISA
