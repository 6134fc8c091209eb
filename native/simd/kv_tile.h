// kv_tile.h: cache rows of one head unpacked to floats, and products of small matrices of them.
#pragma once

#include <algorithm>
#include <vector>

#include <ggml-cpp.h>

#if defined(__AVX512F__) || defined(__F16C__)
#include <immintrin.h>
#endif

// Its own namespace: lanes.h has functions of these names for other vectors.
namespace lazygguf::LAZY_ISA::kv_tile {

constexpr int LANES = 16;
constexpr int TILE = 64; // cache rows unpacked at once
// With fewer queries of a group, unpacking costs more than it saves.
constexpr int64_t MIN_QUERIES = 4;
constexpr int MR = 6; // rows of the register block of a product
using vec = float __attribute__((vector_size(LANES * sizeof(float)), aligned(4)));

inline vec load(const float * p) { return *reinterpret_cast<const vec *>(p); }
inline void store(float * p, vec x) { *reinterpret_cast<vec *>(p) = x; }
inline vec splat(float x) { return x - vec{}; }
inline vec max(vec a, vec b) { return a > b ? a : b; }

// c [m, 16*NV] = (add ? c : 0) + a [m, n_in] * b [n_in, 16*NV]; lda, ldb, ldc in floats
template <int M, int NV>
void product_block(float * c, int ldc, const float * a, int lda, const float * b, int ldb, int n_in, bool add) {
    vec acc[M][NV];
    for (int i = 0; i < M; ++i) {
        for (int j = 0; j < NV; ++j) {
            acc[i][j] = add ? load(c + i * ldc + j * LANES) : vec{};
        }
    }
    for (int k = 0; k < n_in; ++k) {
        vec row[NV];
        for (int j = 0; j < NV; ++j) {
            row[j] = load(b + k * ldb + j * LANES);
        }
        for (int i = 0; i < M; ++i) {
            const vec x = splat(a[i * lda + k]);
            for (int j = 0; j < NV; ++j) {
                acc[i][j] += x * row[j];
            }
        }
    }
    for (int i = 0; i < M; ++i) {
        for (int j = 0; j < NV; ++j) {
            store(c + i * ldc + j * LANES, acc[i][j]);
        }
    }
}

// As above with m rows, at most M.
template <int NV, int M = MR>
void product_rows(float * c, int ldc, const float * a, int lda, const float * b, int ldb, int m, int n_in, bool add) {
    if (m == M) {
        product_block<M, NV>(c, ldc, a, lda, b, ldb, n_in, add);
    } else if constexpr (M > 1) {
        product_rows<NV, M - 1>(c, ldc, a, lda, b, ldb, m, n_in, add);
    }
}

// Any number of rows, in blocks of nearly the same size: b is read once per block, however small.
template <int NV>
void product_columns(float * c, int ldc, const float * a, int lda, const float * b, int ldb, int m, int n_in,
                     bool add) {
    const int n_blocks = (m + MR - 1) / MR;
    for (int i = 0; i < n_blocks; ++i) {
        const int begin = m * i / n_blocks;
        const int end = m * (i + 1) / n_blocks;
        product_rows<NV>(c + begin * ldc, ldc, a + begin * lda, lda, b, ldb, end - begin, n_in, add);
    }
}

// As above with n_out columns, a multiple of LANES.
inline void product(float * c, int ldc, const float * a, int lda, const float * b, int ldb, int m, int n_in, int n_out,
                    bool add) {
    int j = 0;
    for (; j + 4 * LANES <= n_out; j += 4 * LANES) {
        product_columns<4>(c + j, ldc, a, lda, b + j, ldb, m, n_in, add);
    }
    for (; j < n_out; j += LANES) {
        product_columns<1>(c + j, ldc, a, lda, b + j, ldb, m, n_in, add);
    }
}

// Floats that begin at a cache line: a vector across two lines is loaded and stored twice.
class aligned_floats {
  public:
    void resize(size_t n) { lines_.resize((n + LANES - 1) / LANES); }
    float * data() { return lines_.data()->values; }
    const float * data() const { return lines_.data()->values; }
    void fill(float x) { std::fill(data(), data() + lines_.size() * LANES, x); }

  private:
    struct alignas(LANES * sizeof(float)) line {
        float values[LANES];
    };
    std::vector<line> lines_;
};

inline const char * at(const ggml_tensor * t, int64_t i1, int64_t i2) {
    return static_cast<const char *>(t->data) + static_cast<size_t>(i1) * t->nb[1] + static_cast<size_t>(i2) * t->nb[2];
}

// 16 half floats as floats. ggml's own row function goes one by one.
inline vec load_half(const ggml_fp16_t * p) {
#if defined(__AVX512F__)
    return reinterpret_cast<vec>(
        _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p))));
#elif defined(__F16C__)
    float x[LANES];
    for (int i = 0; i < LANES; i += 8) {
        _mm256_storeu_ps(x + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p + i))));
    }
    return load(x);
#else
    float x[LANES];
    ggml_fp16_to_fp32_row(p, x, LANES);
    return load(x);
#endif
}

// rows[16] -> columns: four rounds that swap blocks of 8, 4, 2 and 1
inline void transpose(vec * x) {
    static_assert(LANES == 16, "four rounds");
    using index = int32_t __attribute__((vector_size(LANES * sizeof(int32_t))));
    const index low[] = {{0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23},
                         {0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27},
                         {0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29},
                         {0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30}};
    const index high[] = {{8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31},
                          {4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31},
                          {2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31},
                          {1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31}};
#pragma GCC unroll 4
    for (int round = 0; round < 4; ++round) {
        const int step = LANES / 2 >> round;
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i) {
            if ((i & step) == 0) {
                const vec a = x[i];
                const vec b = x[i + step];
                x[i] = __builtin_shuffle(a, b, low[round]);
                x[i + step] = __builtin_shuffle(a, b, high[round]);
            }
        }
    }
}

// 16 values of a cache row, from value i on
inline vec load_row(const ggml_tensor * t, const char * row, int i) {
    return t->type == GGML_TYPE_F32 ? load(reinterpret_cast<const float *>(row) + i)
                                    : load_half(reinterpret_cast<const ggml_fp16_t *>(row) + i);
}

// Cache rows [begin, begin + n) of a head by columns: [n_embd_head, TILE]
inline void unpack_columns(const ggml_tensor * t, int head, int begin, int n, float * out) {
    for (int first = 0; first < n; first += LANES) {
        for (int i = 0; i < t->ne[0]; i += LANES) {
            vec block[LANES];
            for (int j = 0; j < LANES; ++j) {
                block[j] = first + j < n ? load_row(t, at(t, begin + first + j, head), i) : vec{};
            }
            transpose(block);
            for (int j = 0; j < LANES; ++j) {
                store(out + (i + j) * TILE + first, block[j]);
            }
        }
    }
}

// The same by rows: [TILE, n_embd_head]
inline void unpack_rows(const ggml_tensor * t, int head, int begin, int n, float * out) {
    for (int row = 0; row < n; ++row) {
        for (int i = 0; i < t->ne[0]; i += LANES) {
            store(out + row * t->ne[0] + i, load_row(t, at(t, begin + row, head), i));
        }
    }
}

inline bool is_float(const ggml_tensor * t) { return t->type == GGML_TYPE_F16 || t->type == GGML_TYPE_F32; }

} // namespace lazygguf::LAZY_ISA::kv_tile
