// matmul.cpp: tiles of N_LANES matrix rows, groups of GROUP_ROWS float rows.
//
// Batch-invariant: a row's result is summed in one order, column block after column block, whatever other rows there
// are. Every row count uses the functions add_block() and add_columns(), whose fused operations are written down.

#include "simd/scratch.h"
#include "simd/weight_tile.h"

#include "simd/kernel_set.h"
#include "simd/matmul_op.h"
#include "simd/packed_rows.h"

namespace lazygguf::LAZY_ISA {
namespace {

LAZY_INLINE floats splat_float(const int32_t * p) {
    float x;
    std::memcpy(&x, p, sizeof x);
    return splat(x);
}

// Adds 32 columns of a tile times rows [T0, T0 + N) of a group of STRIDE.
template <ggml_type type, int STRIDE, int T0, int N>
LAZY_INLINE void add_rows(const weight_tile & tile, const int32_t * block, floats * acc) {
    using of = traits<type>;
    const int32_t * q = block + T0;
    const int32_t * d = q + 8 * STRIDE;
    ints sums[N];
    if constexpr (has_halves(type)) {
        sum_products<of::MAX_CODE, 0, 4, N, STRIDE>(tile.q, q, sums);
#pragma GCC unroll 8
        for (int t = 0; t < N; ++t) {
            acc[T0 + t] = mul_add(to_floats(sums[t]), mul(tile.d_low, splat_float(d + t)), acc[T0 + t]);
        }
        sum_products<of::MAX_CODE, 4, 8, N, STRIDE>(tile.q, q, sums);
    } else {
        sum_products<of::MAX_CODE, 0, 8, N, STRIDE>(tile.q, q, sums);
    }
#pragma GCC unroll 8
    for (int t = 0; t < N; ++t) {
        floats & a = acc[T0 + t];
        a = mul_add(to_floats(sums[t]), mul(tile.d, splat_float(d + t)), a);
        if constexpr (of::HAS_M) {
            a = mul_add(tile.m, splat_float(d + STRIDE + t), a);
        }
        if constexpr (has_halves(type)) {
            a = mul_add(tile.m_diff, splat_float(d + 2 * STRIDE + t), a);
        }
    }
}

// The same for all N rows of the group, as many at once as the registers hold.
template <ggml_type type, int N, int T0 = 0>
LAZY_INLINE void add_block(const weight_tile & tile, const int32_t * block, floats * acc) {
    constexpr int HERE = least(N - T0, ROWS_AT_ONCE<traits<type>::MAX_CODE>);
    add_rows<type, N, T0, HERE>(tile, block, acc);
    if constexpr (T0 + HERE < N) {
        add_block<type, N, T0 + HERE>(tile, block, acc);
    }
}

// A matrix, packed rows and where the products go.
struct product {
    const char * weights;
    ggml_tensor * dst;
    packed_rows rows;
    int n_out;
    int64_t tile_bytes;

    product(ggml_tensor * t, const matmul_op & op)
        : weights(static_cast<const char *>(t->src[0]->data)), dst(t),
          rows{static_cast<char *>(t->src[1]->data), op.n_in, static_cast<int>(t->ne[1])},
          n_out(static_cast<int>(op.n_out)),
          tile_bytes(static_cast<int64_t>(ggml_row_size(op.type, op.n_in)) * N_LANES) {}

    int n_tiles() const { return (n_out + N_LANES - 1) / N_LANES; }
    const char * tile(int i) const { return weights + i * tile_bytes; }
    // Those of a tile of one row.
    void write(int tile, int row, floats x) const {
        float * out = reinterpret_cast<float *>(static_cast<char *>(dst->data) + static_cast<size_t>(row) * dst->nb[1]);
        out += tile * N_LANES;
        const int n = n_out - tile * N_LANES;
        if (n >= N_LANES) {
            store(out, x);
            return;
        }
        float values[N_LANES];
        store(values, x);
        std::memcpy(out, values, static_cast<size_t>(n) * sizeof(float));
    }
};

template <int N> LAZY_INLINE void clear(floats (&acc)[N]) {
    for (int t = 0; t < N; ++t) {
        acc[t] = splat(0.0F);
    }
}

// Adds the tiles of one block of the file, each unpacked when it is needed.
template <ggml_type type, int N, int I = 0>
LAZY_INLINE void add_tiles(const weight_rows<type> & rows, const int32_t * block, floats * acc) {
    weight_tile tile;
    rows.template unpack<I>(&tile);
    add_block<type, N>(tile, block + I * N * ROW_WORDS, acc);
    if constexpr (I + 1 < traits<type>::N_TILES) {
        add_tiles<type, N, I + 1>(rows, block, acc);
    }
}

// Bytes that are asked for ahead of their use: the CPU's own prefetching ends with each page of memory.
constexpr int64_t AHEAD = 4096;

// One group of rows.
template <ggml_type type, int N> LAZY_NOINLINE void multiply_few(const product & p, int tile) {
    constexpr int N_TILES = traits<type>::N_TILES;
    const int32_t * block = p.rows.blocks(0);
    weight_rows<type> rows(p.tile(tile));
    floats acc[N];
    clear(acc);
    const char * ahead = p.tile(tile) + AHEAD;
    for (int b = 0; b < p.rows.n_blocks(); b += N_TILES) {
        for (int64_t i = 0; i < BLOCK_BYTES<type>; i += 64) {
            __builtin_prefetch(ahead + i, 0, 3);
        }
        ahead += BLOCK_BYTES<type>;
        rows.begin();
        add_tiles<type, N>(rows, block, acc);
        rows.next();
        block += N_TILES * N * ROW_WORDS;
    }
    for (int t = 0; t < N; ++t) {
        p.write(tile, t, acc[t]);
    }
}

// Columns that are unpacked at once for many rows: so many that they stay in the first level of the cache beside the
// rows' bytes.
constexpr int CHUNK_BLOCKS = 16;
constexpr int MAX_TILES = 2;
// Of a float matrix and one or two rows, so that no sum waits for the one before.
constexpr int MAX_FLOAT_TILES = 4;

struct memory {
    scratch<weight_tile> tiles;
    scratch<float> columns; // of float matrices
    scratch<float> sums;    // [MAX_TILES][n_rows][N_LANES], between two chunks of columns
};

template <ggml_type type, int N>
LAZY_NOINLINE void multiply_group(const product & p, int g, const weight_tile * tiles, int begin, int end,
                                  float * sums) {
    const int32_t * block = p.rows.blocks(g) + static_cast<int64_t>(begin) * N * ROW_WORDS;
    floats acc[N];
    if (begin == 0) {
        clear(acc);
    } else {
        for (int t = 0; t < N; ++t) {
            acc[t] = load(sums + t * N_LANES);
        }
    }
    for (int b = begin; b < end; ++b) {
        add_block<type, N>(tiles[b - begin], block, acc);
        block += N * ROW_WORDS;
    }
    for (int t = 0; t < N; ++t) {
        store(sums + t * N_LANES, acc[t]);
    }
}

template <int N> struct count_of {
    static constexpr int value = N;
};

// Calls f with n as a constant.
template <int N = GROUP_ROWS, typename F> LAZY_INLINE void with_count(int n, const F & f) {
    if (n == N) {
        f(count_of<N>());
    } else if constexpr (N > 1) {
        with_count<N - 1>(n, f);
    }
}

void write_sums(const product & p, int tile, const float * sums) {
    for (int row = 0; row < p.rows.n_rows; ++row) {
        p.write(tile, row, load(sums + static_cast<size_t>(row) * N_LANES));
    }
}

template <ggml_type type, int I = 0>
LAZY_INLINE void unpack_block(const weight_rows<type> & rows, weight_tile * tiles) {
    rows.template unpack<I>(tiles + I);
    if constexpr (I + 1 < traits<type>::N_TILES) {
        unpack_block<type, I + 1>(rows, tiles);
    }
}

// Many rows: some columns of one or two tiles are unpacked once for all of them.
template <ggml_type type> void multiply_many(const product & p, int first, int n_tiles, memory & m) {
    constexpr int AT_ONCE = traits<type>::N_TILES;
    const int n_rows = p.rows.n_rows;
    weight_tile * tiles = m.tiles.reserve(MAX_TILES * CHUNK_BLOCKS);
    const size_t n_sums = static_cast<size_t>(n_rows) * N_LANES;
    float * sums = m.sums.reserve(MAX_TILES * n_sums);
    weight_rows<type> rows[MAX_TILES] = {weight_rows<type>(p.tile(first)),
                                         weight_rows<type>(p.tile(first + n_tiles - 1))};
    for (int begin = 0; begin < p.rows.n_blocks(); begin += CHUNK_BLOCKS) {
        const int end = least(begin + CHUNK_BLOCKS, p.rows.n_blocks());
        for (int i = 0; i < n_tiles; ++i) {
            for (int b = begin; b < end; b += AT_ONCE) {
                rows[i].begin();
                unpack_block<type>(rows[i], tiles + i * CHUNK_BLOCKS + b - begin);
                rows[i].next();
            }
        }
        for (int g = 0; g < p.rows.n_groups(); ++g) {
            for (int i = 0; i < n_tiles; ++i) {
                float * here = sums + static_cast<size_t>(i) * n_sums + static_cast<size_t>(g) * GROUP_ROWS * N_LANES;
                with_count(p.rows.count(g), [&](auto n) {
                    multiply_group<type, decltype(n)::value>(p, g, tiles + i * CHUNK_BLOCKS, begin, end, here);
                });
            }
        }
    }
    for (int i = 0; i < n_tiles; ++i) {
        write_sums(p, first + i, sums + static_cast<size_t>(i) * n_sums);
    }
}

// ---- float matrices ----

template <ggml_type type> LAZY_INLINE floats load_weights(const char * tile, int64_t column) {
    if constexpr (type == GGML_TYPE_F32) {
        return load(reinterpret_cast<const float *>(tile) + column * N_LANES);
    } else if constexpr (type == GGML_TYPE_F16) {
        return load_halves(tile + column * HALVES);
    } else {
        return load_brain_halves(tile + column * HALVES);
    }
}

// Adds columns [begin, end) of T tiles times N rows. The tiles' columns lie from `begin` on.
template <ggml_type type, int N, int T>
LAZY_INLINE void add_columns(const char * const * tiles, const float * rows, int64_t begin, int64_t end,
                             floats (*acc)[T]) {
    for (int64_t k = begin; k < end; ++k) {
        floats w[T];
        for (int i = 0; i < T; ++i) {
            w[i] = load_weights<type>(tiles[i], k - begin);
        }
#pragma GCC unroll 8
        for (int t = 0; t < N; ++t) {
            const floats x = splat(rows[k * N + t]);
            for (int i = 0; i < T; ++i) {
                acc[t][i] = mul_add(w[i], x, acc[t][i]);
            }
        }
    }
}

template <ggml_type type, int N, int T> LAZY_NOINLINE void multiply_few_floats(const product & p, int first) {
    const char * tiles[T];
    for (int i = 0; i < T; ++i) {
        tiles[i] = p.tile(first + i);
    }
    floats acc[N][T];
    for (auto & row : acc) {
        for (floats & a : row) {
            a = splat(0.0F);
        }
    }
    add_columns<type, N, T>(tiles, p.rows.columns(0), 0, p.rows.n_in, acc);
    for (int t = 0; t < N; ++t) {
        for (int i = 0; i < T; ++i) {
            p.write(first + i, t, acc[t][i]);
        }
    }
}

template <int N, int T>
LAZY_NOINLINE void multiply_float_group(const product & p, int g, const char * const * tiles, int64_t begin,
                                        int64_t end, float * sums, size_t n_sums) {
    floats acc[N][T];
    for (int t = 0; t < N; ++t) {
        for (int i = 0; i < T; ++i) {
            acc[t][i] = begin == 0 ? splat(0.0F) : load(sums + static_cast<size_t>(i) * n_sums + t * N_LANES);
        }
    }
    add_columns<GGML_TYPE_F32, N, T>(tiles, p.rows.columns(g), begin, end, acc);
    for (int t = 0; t < N; ++t) {
        for (int i = 0; i < T; ++i) {
            store(sums + static_cast<size_t>(i) * n_sums + t * N_LANES, acc[t][i]);
        }
    }
}

template <ggml_type type, int T> void multiply_many_floats(const product & p, int first, memory & m) {
    constexpr int64_t CHUNK = 128; // columns
    const size_t n_sums = static_cast<size_t>(p.rows.n_rows) * N_LANES;
    float * sums = m.sums.reserve(MAX_TILES * n_sums);
    float * columns = m.columns.reserve(MAX_TILES * CHUNK * N_LANES);
    const char * tiles[T];
    for (int i = 0; i < T; ++i) {
        tiles[i] = reinterpret_cast<const char *>(columns + i * CHUNK * N_LANES);
    }
    for (int64_t begin = 0; begin < p.rows.n_in; begin += CHUNK) {
        const int64_t end = begin + CHUNK < p.rows.n_in ? begin + CHUNK : p.rows.n_in;
        for (int i = 0; i < T; ++i) {
            for (int64_t k = begin; k < end; ++k) {
                store(columns + (i * CHUNK + k - begin) * N_LANES, load_weights<type>(p.tile(first + i), k));
            }
        }
        for (int g = 0; g < p.rows.n_groups(); ++g) {
            float * here = sums + static_cast<size_t>(g) * GROUP_ROWS * N_LANES;
            with_count(p.rows.count(g), [&](auto n) {
                multiply_float_group<decltype(n)::value, T>(p, g, tiles, begin, end, here, n_sums);
            });
        }
    }
    for (int i = 0; i < T; ++i) {
        write_sums(p, first + i, sums + static_cast<size_t>(i) * n_sums);
    }
}

// ---- operations ----

template <ggml_type type, int T = MAX_FLOAT_TILES>
void multiply_float_tiles(const product & p, int first, int n_tiles, memory & m) {
    if (T > n_tiles) {
        if constexpr (T > 1) {
            multiply_float_tiles<type, T - 1>(p, first, n_tiles, m);
        }
        return;
    }
    if constexpr (T <= MAX_TILES) {
        if (p.rows.n_groups() > 1) {
            multiply_many_floats<type, T>(p, first, m);
        } else {
            with_count(p.rows.n_rows, [&](auto n) { multiply_few_floats<type, decltype(n)::value, T>(p, first); });
        }
    } else if (p.rows.n_rows == 2) {
        multiply_few_floats<type, 2, T>(p, first);
    } else {
        multiply_few_floats<type, 1, T>(p, first);
    }
}

template <ggml_type type> void multiply_tiles(const product & p, int first, int n_tiles, memory & m) {
    if constexpr (takes_floats(type)) {
        multiply_float_tiles<type>(p, first, n_tiles, m);
    } else if (p.rows.n_groups() > 1) {
        multiply_many<type>(p, first, n_tiles, m);
    } else {
        for (int i = 0; i < n_tiles; ++i) {
            with_count(p.rows.n_rows, [&](auto n) { multiply_few<type, decltype(n)::value>(p, first + i); });
        }
    }
}

template <ggml_type type> void multiply(ggml_tensor * dst, int /*ith*/, int nth, void * user) {
    // With few rows memory bandwidth limits, so threads get few long runs; with many, more short ones balance the load.
    constexpr int PARTS_OF_FEW = 4; // per thread
    constexpr int PARTS_OF_MANY = 8;
    thread_local memory m;
    auto & op = *static_cast<matmul_op *>(user);
    const product p(dst, op);
    const int n_parts = nth * (p.rows.n_groups() > 1 ? PARTS_OF_MANY : PARTS_OF_FEW);
    const int at_once = takes_floats(type) && p.rows.n_rows <= 2 ? MAX_FLOAT_TILES : MAX_TILES;
    const int n_runs = (p.n_tiles() + at_once - 1) / at_once;
    const int part = (n_runs + n_parts - 1) / n_parts * at_once;
    for (int begin = op.queue.take() * part; begin < p.n_tiles(); begin = op.queue.take() * part) {
        const int end = least(begin + part, p.n_tiles());
        for (int tile = begin; tile < end; tile += at_once) {
            multiply_tiles<type>(p, tile, least(at_once, end - tile), m);
        }
    }
    op.queue.leave(nth);
}

ggml_custom_op_t kernel_of(ggml_type type) {
    switch (type) {
        case GGML_TYPE_F32: return multiply<GGML_TYPE_F32>;
        case GGML_TYPE_F16: return multiply<GGML_TYPE_F16>;
        case GGML_TYPE_BF16: return multiply<GGML_TYPE_BF16>;
        case GGML_TYPE_Q4_0: return multiply<GGML_TYPE_Q4_0>;
        case GGML_TYPE_Q4_1: return multiply<GGML_TYPE_Q4_1>;
        case GGML_TYPE_Q5_0: return multiply<GGML_TYPE_Q5_0>;
        case GGML_TYPE_Q5_1: return multiply<GGML_TYPE_Q5_1>;
        case GGML_TYPE_Q8_0: return multiply<GGML_TYPE_Q8_0>;
        case GGML_TYPE_IQ4_NL: return multiply<GGML_TYPE_IQ4_NL>;
        case GGML_TYPE_IQ4_XS: return multiply<GGML_TYPE_IQ4_XS>;
        case GGML_TYPE_Q2_K: return multiply<GGML_TYPE_Q2_K>;
        case GGML_TYPE_Q3_K: return multiply<GGML_TYPE_Q3_K>;
        case GGML_TYPE_Q4_K: return multiply<GGML_TYPE_Q4_K>;
        case GGML_TYPE_Q5_K: return multiply<GGML_TYPE_Q5_K>;
        case GGML_TYPE_Q6_K: return multiply<GGML_TYPE_Q6_K>;
        default: return nullptr;
    }
}

} // namespace

matmul_kernels matmul() { return {N_LANES, pack_bytes, pack_floats, packed_size, kernel_of}; }

} // namespace lazygguf::LAZY_ISA
