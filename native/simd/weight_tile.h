// weight_tile.h: a few rows of a quantized matrix, 32 columns at a time, as bytes ready to be multiplied.
//
// Owns the layouts of ggml's block types (ggml-common.h is not installed with the headers). Every type becomes the
// same thing: weight = d * byte + m, with d and m by row; Q6_K has a pair for each half of the 32 columns.
#pragma once

#include "simd/lanes.h"

#if HAS_LANES

#include <ggml.h>

namespace lazygguf::LAZY_ISA {

struct weight_tile {
    ints q[8];     // four columns each, a lane per row
    floats d;      // of all 32 columns, or of the last 16
    floats m;      // the same
    floats d_low;  // Q6_K: of the first 16
    floats m_diff; // Q6_K: m of the first 16, less m of the last
};

// N_LANES rows of a matrix, `stride` bytes apart. unpack() gives columns [32*i, 32*i + 32).
template <ggml_type type> class weight_rows;

constexpr bool has_halves(ggml_type type) { return type == GGML_TYPE_Q6_K; }

// The types whose blocks have 32 weights.
template <ggml_type type, int Q_OFFSET, int ZERO> class small_blocks {
  public:
    small_blocks(const char * rows, size_t stride, size_t block_size)
        : rows_(rows), stride_(stride), block_size_(block_size) {}

    LAZY_INLINE void unpack(int i, weight_tile & tile) {
        const char * block = rows_ + static_cast<size_t>(i) * block_size_;
        ints bytes[8];
        for (int r = 0; r < 8; ++r) {
            bytes[r] = bytes_of(block + static_cast<size_t>(r) * stride_);
        }
        transpose(bytes, tile.q);
        if constexpr (ZERO == 0) {
            gather_half_pairs(block, stride_, tile.d, tile.m);
        } else {
            tile.d = gather_halves(block, stride_);
            tile.m = mul(tile.d, splat(static_cast<float>(-ZERO)));
        }
    }

  private:
    const char * rows_;
    size_t stride_;
    size_t block_size_;

    LAZY_INLINE ints bytes_of(const char * block) const {
        if constexpr (type == GGML_TYPE_Q8_0) {
            return bit_xor(load_bytes(block + Q_OFFSET, stride_), splat_bytes(0x80));
        } else if constexpr (type == GGML_TYPE_Q5_0 || type == GGML_TYPE_Q5_1) {
            return bit_or(load_nibbles(block + Q_OFFSET, stride_), load_fifth_bits(block + Q_OFFSET - 4, stride_));
        } else {
            return load_nibbles(block + Q_OFFSET, stride_);
        }
    }
};

#define LAZY_SMALL_BLOCKS(type, q_offset, zero)                                                                        \
    template <> class weight_rows<type> : public small_blocks<type, q_offset, zero> {                                  \
        using small_blocks::small_blocks;                                                                              \
    }
LAZY_SMALL_BLOCKS(GGML_TYPE_Q4_0, 2, 8);
LAZY_SMALL_BLOCKS(GGML_TYPE_Q4_1, 4, 0);
LAZY_SMALL_BLOCKS(GGML_TYPE_Q5_0, 6, 16);
LAZY_SMALL_BLOCKS(GGML_TYPE_Q5_1, 8, 0);
LAZY_SMALL_BLOCKS(GGML_TYPE_Q8_0, 2, 128);
#undef LAZY_SMALL_BLOCKS

// Q4_K and Q5_K: blocks of 256, eight times 32 with a 6-bit scale and minimum each. Must be unpacked in order.
template <ggml_type type> class large_blocks {
  public:
    large_blocks(const char * rows, size_t stride, size_t block_size)
        : rows_(rows), stride_(stride), block_size_(block_size) {}

    LAZY_INLINE void unpack(int i, weight_tile & tile) {
        const int j = i % 8;
        const char * block = rows_ + static_cast<size_t>(i / 8) * block_size_;
        if (j == 0) {
            read_scales(block);
        }
        const char * q = block + (type == GGML_TYPE_Q5_K ? 48 : 16) + 32 * (j / 2);
        const int shift = j % 2 * 4;
        ints bytes[8];
        for (int r = 0; r < 8; ++r) {
            const size_t row = static_cast<size_t>(r) * stride_;
            bytes[r] = bit_and(shift_right(load_bytes(q + row, stride_), shift), splat_bytes(15));
            if constexpr (type == GGML_TYPE_Q5_K) {
                const ints high = shift_right(load_bytes(block + 16 + row, stride_), j);
                bytes[r] = bit_or(bytes[r], shift_left(bit_and(high, splat_bytes(1)), 4));
            }
        }
        transpose(bytes, tile.q);
        const int byte = j % 4 * 8;
        tile.d = mul(d_, to_floats(bit_and(shift_right(scales_[j / 4], byte), splat(0xff))));
        tile.m = mul(minus_d_min_, to_floats(bit_and(shift_right(mins_[j / 4], byte), splat(0xff))));
    }

  private:
    const char * rows_;
    size_t stride_;
    size_t block_size_;
    floats d_{}, minus_d_min_{};
    ints scales_[2]{}, mins_[2]{}; // four bytes each: of columns 0-127 and 128-255

    void read_scales(const char * block) {
        const ints ds = gather(block, stride_);
        d_ = halves_of(ds);
        minus_d_min_ = sub(splat(0.0F), halves_of(shift_right(ds, 16)));
        const ints a = gather(block + 4, stride_);
        const ints b = gather(block + 8, stride_);
        const ints c = gather(block + 12, stride_);
        const ints six = splat_bytes(0x3f);
        const ints four = splat_bytes(0x0f);
        const ints two = splat_bytes(0x03);
        scales_[0] = bit_and(a, six);
        mins_[0] = bit_and(b, six);
        scales_[1] = bit_or(bit_and(c, four), shift_left(bit_and(shift_right(a, 6), two), 4));
        mins_[1] = bit_or(bit_and(shift_right(c, 4), four), shift_left(bit_and(shift_right(b, 6), two), 4));
    }
};

template <> class weight_rows<GGML_TYPE_Q4_K> : public large_blocks<GGML_TYPE_Q4_K> {
    using large_blocks::large_blocks;
};
template <> class weight_rows<GGML_TYPE_Q5_K> : public large_blocks<GGML_TYPE_Q5_K> {
    using large_blocks::large_blocks;
};

// Q6_K: blocks of 256, sixteen times 16 with an 8-bit scale each. Must be unpacked in order.
template <> class weight_rows<GGML_TYPE_Q6_K> {
  public:
    weight_rows(const char * rows, size_t stride, size_t block_size)
        : rows_(rows), stride_(stride), block_size_(block_size) {}

    LAZY_INLINE void unpack(int i, weight_tile & tile) {
        const int half = i % 8 / 4;
        const int j = i % 4;
        const char * block = rows_ + static_cast<size_t>(i / 8) * block_size_;
        if (i % 8 == 0) {
            read_scales(block);
        }
        const char * low = block + 64 * half + 32 * (j % 2);
        const char * high = block + 128 + 32 * half;
        ints bytes[8];
        for (int r = 0; r < 8; ++r) {
            const size_t row = static_cast<size_t>(r) * stride_;
            const ints nibbles = bit_and(shift_right(load_bytes(low + row, stride_), j / 2 * 4), splat_bytes(15));
            const ints two = bit_and(shift_right(load_bytes(high + row, stride_), 2 * j), splat_bytes(3));
            bytes[r] = bit_or(nibbles, shift_left(two, 4));
        }
        transpose(bytes, tile.q);
        const floats minus_zero = splat(-32.0F);
        tile.d_low = mul(d_, scale(8 * half + 2 * j));
        tile.d = mul(d_, scale(8 * half + 2 * j + 1));
        tile.m = mul(tile.d, minus_zero);
        tile.m_diff = mul(sub(tile.d_low, tile.d), minus_zero);
    }

  private:
    const char * rows_;
    size_t stride_;
    size_t block_size_;
    floats d_{};
    ints scales_[4]{}; // four signed bytes each

    void read_scales(const char * block) {
        for (int i = 0; i < 4; ++i) {
            scales_[i] = gather(block + 192 + 4 * i, stride_);
        }
        d_ = halves_of(shift_right(gather(block + 206, stride_), 16)); // its last two bytes, none behind them
    }

    LAZY_INLINE floats scale(int i) const {
        return to_floats(shift_right_signed(shift_left(scales_[i / 4], 24 - i % 4 * 8), 24));
    }
};

} // namespace lazygguf::LAZY_ISA

#endif
