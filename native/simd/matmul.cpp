// matmul.cpp: tiles of N_LANES matrix rows, groups of GROUP_ROWS float rows.

#include "simd/kernel_set.h"
#include "simd/work_queue.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "simd/weight_tile.h"

namespace lazygguf::LAZY_ISA {

#if HAS_LANES

namespace {

constexpr int BLOCK = 32; // columns with one scale

// The rows of one group, packed. Of `n` rows: 8 four-byte groups per block and row, then three floats per block and
// row.
struct row_group {
    int n;
    int n_blocks;
    char * data;

    static size_t size(int64_t n_in, int64_t n) {
        return static_cast<size_t>(n * n_in + n * n_in / BLOCK * 3 * static_cast<int64_t>(sizeof(float)));
    }
    int32_t * q(int block) const { return reinterpret_cast<int32_t *>(data) + static_cast<size_t>(block * 8 * n); }
    float * d(int block) const { return floats_at(0) + block * n; }       // scale
    float * sum(int block) const { return floats_at(1) + block * n; }     // of the block's values as rounded
    float * sum_low(int block) const { return floats_at(2) + block * n; } // of its first 16

  private:
    float * floats_at(int i) const {
        return reinterpret_cast<float *>(data + static_cast<size_t>(n * n_blocks) * BLOCK) + i * n_blocks * n;
    }
};

// The groups of a packed tensor: all of GROUP_ROWS but the last.
class packed_view {
  public:
    packed_view(const ggml_tensor * packed, int64_t n_in, int64_t n_rows)
        : data_(static_cast<char *>(packed->data)), n_in_(n_in), n_rows_(static_cast<int>(n_rows)) {}

    int n_groups() const { return (n_rows_ + GROUP_ROWS - 1) / GROUP_ROWS; }
    int n_blocks() const { return static_cast<int>(n_in_ / BLOCK); }
    row_group group(int i) const {
        const int n = std::min(GROUP_ROWS, n_rows_ - i * GROUP_ROWS);
        return {n, n_blocks(), data_ + row_group::size(n_in_, static_cast<int64_t>(i) * GROUP_ROWS)};
    }

  private:
    char * data_;
    int64_t n_in_;
    int n_rows_;
};

// Largest magnitude as bits: float bits order like magnitudes, and Inf/NaN come out largest.
uint32_t largest_bits(const float * x) {
    uint32_t bits[BLOCK];
    std::memcpy(bits, x, sizeof bits);
    uint32_t largest = 0;
    for (const uint32_t b : bits) {
        largest = std::max(largest, b & 0x7fffffffU);
    }
    return largest;
}

// Row t of the group, columns of one block.
void pack_block(const float * x, const row_group & group, int block, int t) {
    constexpr float ROUND = 12582912.0F; // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
    const uint32_t bits = largest_bits(x);
    float largest;
    std::memcpy(&largest, &bits, sizeof largest);
    const bool is_finite = bits < 0x7f800000U;
    const float inverse = is_finite && largest > 0.0F ? 127.0F / largest : 0.0F;
    int8_t q[BLOCK];
    int sum_low = 0;
    int sum_high = 0;
    float shifted[BLOCK];
    int32_t rounded[BLOCK];
    for (int i = 0; i < BLOCK; ++i) {
        shifted[i] = (is_finite ? x[i] * inverse : 0.0F) + ROUND;
    }
    std::memcpy(rounded, shifted, sizeof rounded);
    for (int i = 0; i < BLOCK; ++i) {
        rounded[i] -= 0x4b400000;
        q[i] = static_cast<int8_t>(rounded[i]);
    }
    for (int i = 0; i < BLOCK / 2; ++i) {
        sum_low += rounded[i];
        sum_high += rounded[i + BLOCK / 2];
    }
    const float d = is_finite ? largest / 127.0F : std::numeric_limits<float>::quiet_NaN();
    for (int j = 0; j < 8; ++j) {
        std::memcpy(group.q(block) + j * group.n + t, q + 4 * j, 4);
    }
    group.d(block)[t] = d;
    group.sum(block)[t] = d * static_cast<float>(sum_low + sum_high);
    group.sum_low(block)[t] = d * static_cast<float>(sum_low);
}

void pack_rows(ggml_tensor * dst, int ith, int nth, void * /*unused*/) {
    const ggml_tensor * x = dst->src[0];
    const packed_view packed(dst, x->ne[0], x->ne[1]);
    for (int g = ith; g < packed.n_groups(); g += nth) {
        const row_group group = packed.group(g);
        for (int t = 0; t < group.n; ++t) {
            const char * row = static_cast<const char *>(x->data) + static_cast<size_t>(g * GROUP_ROWS + t) * x->nb[1];
            for (int b = 0; b < group.n_blocks; ++b) {
                pack_block(reinterpret_cast<const float *>(row) + b * BLOCK, group, b, t);
            }
        }
    }
}

// Adds d * (q . x) for the four-byte groups [J0, J1) of a block: N rows at once, so that no product waits for another.
template <int N, int J0, int J1>
LAZY_INLINE void add_products(const weight_tile & tile, floats d, const int32_t * q, const float * dx, floats * acc) {
    ints sums[N];
    for (int t = 0; t < N; ++t) {
        sums[t] = splat(0);
    }
#pragma GCC unroll 8
    for (int j = J0; j < J1; ++j) {
#pragma GCC unroll 8
        for (int t = 0; t < N; ++t) {
            sums[t] = dot(sums[t], tile.q[j], splat(q[j * N + t]));
        }
    }
#pragma GCC unroll 8
    for (int t = 0; t < N; ++t) {
        acc[t] = mul_add(to_floats(sums[t]), mul(d, splat(dx[t])), acc[t]);
    }
}

template <bool HALVES, int N>
LAZY_INLINE void add_block(const weight_tile & tile, const row_group & group, int b, floats * acc) {
    const int32_t * q = group.q(b);
    const float * dx = group.d(b);
    if constexpr (HALVES) {
        add_products<N, 0, 4>(tile, tile.d_low, q, dx, acc);
        add_products<N, 4, 8>(tile, tile.d, q, dx, acc);
    } else {
        add_products<N, 0, 8>(tile, tile.d, q, dx, acc);
    }
#pragma GCC unroll 8
    for (int t = 0; t < N; ++t) {
        acc[t] = mul_add(tile.m, splat(group.sum(b)[t]), acc[t]);
        if constexpr (HALVES) {
            acc[t] = mul_add(tile.m_diff, splat(group.sum_low(b)[t]), acc[t]);
        }
    }
}

// One matrix and the rows it multiplies.
struct matmul_op {
    const ggml_tensor * weights;
    ggml_tensor * dst;
    packed_view packed;
    int n_out;

    explicit matmul_op(ggml_tensor * t)
        : weights(t->src[0]), dst(t), packed(t->src[1], t->src[0]->ne[0], t->ne[1]), n_out(static_cast<int>(t->ne[0])) {
    }
    int n_tiles() const { return (n_out + N_LANES - 1) / N_LANES; }
    // The last tile begins earlier where n_out is no multiple of N_LANES, and writes its new rows only.
    int first_row(int tile) const { return std::min(tile * N_LANES, n_out - N_LANES); }
    const char * rows(int tile) const {
        return static_cast<const char *>(weights->data) + static_cast<size_t>(first_row(tile)) * weights->nb[1];
    }
};

void write(const matmul_op & op, int tile, int row, floats x) {
    float * out =
        reinterpret_cast<float *>(static_cast<char *>(op.dst->data) + static_cast<size_t>(row) * op.dst->nb[1]);
    const int skip = tile * N_LANES - op.first_row(tile);
    if (skip == 0) {
        store(out + tile * N_LANES, x);
        return;
    }
    float values[N_LANES];
    store(values, x);
    std::copy(values + skip, values + N_LANES, out + tile * N_LANES);
}

// Few rows: every block is unpacked when it is needed, and the next tile is prefetched.
template <ggml_type type, int N> void multiply_few(const matmul_op & op, int tile) {
    const row_group group = op.packed.group(0);
    const size_t stride = op.weights->nb[1];
    const size_t ahead = N_LANES * stride / static_cast<size_t>(group.n_blocks);
    const char * next = op.rows(std::min(tile + 1, op.n_tiles() - 1));
    weight_rows<type> rows(op.rows(tile), stride, ggml_type_size(type));
    floats acc[N];
    std::fill(acc, acc + N, splat(0.0F));
    for (int b = 0; b < group.n_blocks; ++b) {
        for (size_t i = 0; i < ahead; i += 64) {
            __builtin_prefetch(next + static_cast<size_t>(b) * ahead + i, 0, PREFETCH_LEVEL);
        }
        weight_tile columns;
        rows.unpack(b, columns);
        add_block<has_halves(type), N>(columns, group, b, acc);
    }
    for (int t = 0; t < N; ++t) {
        write(op, tile, t, acc[t]);
    }
}

template <ggml_type type, int N> void multiply_group(const matmul_op & op, int tile, int g, const weight_tile * tiles) {
    const row_group group = op.packed.group(g);
    floats acc[N];
    std::fill(acc, acc + N, splat(0.0F));
    for (int b = 0; b < group.n_blocks; ++b) {
        add_block<has_halves(type), N>(tiles[b], group, b, acc);
    }
    for (int t = 0; t < N; ++t) {
        write(op, tile, g * GROUP_ROWS + t, acc[t]);
    }
}

// Calls f with n as a constant.
template <int N = GROUP_ROWS, typename F> void with_count(int n, const F & f) {
    if (n == N) {
        f(std::integral_constant<int, N>());
    } else if constexpr (N > 1) {
        with_count<N - 1>(n, f);
    }
}

// Many rows: the tile is unpacked once.
template <ggml_type type> void multiply_many(const matmul_op & op, int tile, std::vector<weight_tile> & tiles) {
    tiles.resize(static_cast<size_t>(op.packed.n_blocks()));
    weight_rows<type> rows(op.rows(tile), op.weights->nb[1], ggml_type_size(type));
    for (int b = 0; b < op.packed.n_blocks(); ++b) {
        rows.unpack(b, tiles[static_cast<size_t>(b)]);
    }
    for (int g = 0; g < op.packed.n_groups(); ++g) {
        with_count(op.packed.group(g).n,
                   [&](auto n) { multiply_group<type, decltype(n)::value>(op, tile, g, tiles.data()); });
    }
}

template <ggml_type type> void multiply(ggml_tensor * dst, int /*ith*/, int nth, void * queue) {
    // With few rows memory bandwidth limits, so threads get few long runs; with many, more short ones balance the load.
    constexpr int PARTS_OF_FEW = 4; // per thread
    constexpr int PARTS_OF_MANY = 8;
    thread_local std::vector<weight_tile> tiles;
    const matmul_op op(dst);
    auto & work = *static_cast<work_queue *>(queue);
    const int n_parts = nth * (op.packed.n_groups() > 1 ? PARTS_OF_MANY : PARTS_OF_FEW);
    const int part = std::max(1, op.n_tiles() / n_parts);
    for (int begin = work.take() * part; begin < op.n_tiles(); begin = work.take() * part) {
        for (int tile = begin; tile < std::min(begin + part, op.n_tiles()); ++tile) {
            if (op.packed.n_groups() > 1) {
                multiply_many<type>(op, tile, tiles);
                continue;
            }
            with_count(op.packed.group(0).n, [&](auto n) { multiply_few<type, decltype(n)::value>(op, tile); });
        }
    }
    work.leave(nth);
}

// The kernel of a type, or null. Bytes up to 255 need dot products that cannot overflow.
ggml_custom_op_t kernel_of(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_0: return multiply<GGML_TYPE_Q4_0>;
        case GGML_TYPE_Q4_1: return multiply<GGML_TYPE_Q4_1>;
        case GGML_TYPE_Q5_0: return multiply<GGML_TYPE_Q5_0>;
        case GGML_TYPE_Q5_1: return multiply<GGML_TYPE_Q5_1>;
        case GGML_TYPE_Q8_0: return HAS_BYTE_DOT ? multiply<GGML_TYPE_Q8_0> : nullptr;
        case GGML_TYPE_Q4_K: return multiply<GGML_TYPE_Q4_K>;
        case GGML_TYPE_Q5_K: return multiply<GGML_TYPE_Q5_K>;
        case GGML_TYPE_Q6_K: return multiply<GGML_TYPE_Q6_K>;
        default: return nullptr;
    }
}

int64_t packed_size(int64_t n_in, int64_t n_rows) { return static_cast<int64_t>(row_group::size(n_in, n_rows)); }

} // namespace

matmul_kernels matmul() { return {N_LANES, pack_rows, packed_size, kernel_of}; }

#else

matmul_kernels matmul() { return {1, nullptr, nullptr, [](ggml_type) -> ggml_custom_op_t { return nullptr; }}; }

#endif

} // namespace lazygguf::LAZY_ISA
