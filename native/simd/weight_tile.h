// weight_tile.h: a few rows of a quantized matrix, 32 columns at a time, as bytes ready to be multiplied.
//
// Reads the layout of packed_layout.h. Every type becomes the same thing: weight = d * code + m, with d and m by row;
// Q2_K, Q3_K and Q6_K have a d for each half of the 32 columns.
#pragma once

#include <ggml.h>

#include "simd/lanes.h"
#include "simd/packed_layout.h"

namespace lazygguf::LAZY_ISA {

struct weight_tile {
    ints q[8];     // codes of four columns each, a lane per row
    floats d;      // of all 32 columns, or of the last 16
    floats m;      // the same
    floats d_low;  // of the first 16, where the halves differ
    floats m_diff; // m of the first 16, less m of the last
};

constexpr int WORDS = 4 * N_LANES;  // bytes of a word of four bytes, all rows
constexpr int HALVES = 2 * N_LANES; // of one of two bytes
// Bytes of a block of the file, all rows.
template <ggml_type type> constexpr int BLOCK_BYTES = packed_block_bytes(type) * N_LANES;

// What a type is: its largest code, whether it has m, and how many tiles a block of the file gives.
template <ggml_type type> struct traits;
template <int CODE, bool M, int N = 1> struct traits_of {
    static constexpr int MAX_CODE = CODE;
    static constexpr bool HAS_M = M;
    static constexpr int N_TILES = N;
};
template <> struct traits<GGML_TYPE_Q4_0> : traits_of<15, true> {};
template <> struct traits<GGML_TYPE_Q4_1> : traits_of<15, true> {};
template <> struct traits<GGML_TYPE_Q5_0> : traits_of<31, true> {};
template <> struct traits<GGML_TYPE_Q5_1> : traits_of<31, true> {};
template <> struct traits<GGML_TYPE_Q8_0> : traits_of<SIGNED_CODES, !HAS_SIGNED_CODES> {};
template <> struct traits<GGML_TYPE_IQ4_NL> : traits_of<SIGNED_CODES, !HAS_SIGNED_CODES> {};
template <> struct traits<GGML_TYPE_Q4_K> : traits_of<15, true, 8> {};
template <> struct traits<GGML_TYPE_Q5_K> : traits_of<31, true, 8> {};
template <> struct traits<GGML_TYPE_Q6_K> : traits_of<63, true, 8> {};

template <> struct traits<GGML_TYPE_IQ4_XS> : traits_of<SIGNED_CODES, !HAS_SIGNED_CODES, 8> {};
template <> struct traits<GGML_TYPE_Q2_K> : traits_of<3, true, 8> {};
template <> struct traits<GGML_TYPE_Q3_K> : traits_of<7, true, 8> {};

constexpr bool has_halves(ggml_type type) {
    return type == GGML_TYPE_Q2_K || type == GGML_TYPE_Q3_K || type == GGML_TYPE_Q6_K;
}

// The values that the codes of IQ4_NL and IQ4_XS stand for; where the kernel wants them unsigned, with 128 added.
LAZY_INLINE ints look_up_values(ints codes) {
    constexpr int8_t VALUES[] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    const ints values = look_up(VALUES, codes);
    return HAS_SIGNED_CODES ? values : bit_xor(values, splat_bytes(0x80));
}

LAZY_INLINE ints low_nibbles(ints x) { return bit_and(x, splat_bytes(15)); }
LAZY_INLINE ints high_nibbles(ints x) { return bit_and(shift_right<4>(x), splat_bytes(15)); }

// Bit J of each byte, as 16.
template <int J> LAZY_INLINE ints fifth_bits(ints x) {
    if constexpr (J > 4) {
        return bit_and(shift_right<J - 4>(x), splat_bytes(16));
    } else if constexpr (J < 4) {
        return bit_and(shift_left<4 - J>(x), splat_bytes(16));
    } else {
        return bit_and(x, splat_bytes(16));
    }
}

// The rows of one tile, block of the file by block: begin(), unpack<I>() of its N_TILES tiles, next().
template <ggml_type type> class weight_rows;

// The types whose blocks have 32 weights. ZERO: the code that stands for 0, where there is no m in the file.
template <ggml_type type, int ZERO> class small_blocks {
  public:
    explicit small_blocks(const char * rows) : next_(rows) {}

    LAZY_INLINE void begin() {}
    LAZY_INLINE void next() { next_ += BLOCK_BYTES<type>; }

    template <int I> LAZY_INLINE void unpack(weight_tile * tile) const {
        const char * p = next_;
        tile->d = load_halves(p);
        p += HALVES;
        if constexpr (ZERO == 0) {
            tile->m = load_halves(p);
            p += HALVES;
        } else if constexpr (traits<type>::HAS_M) {
            tile->m = mul(tile->d, splat(static_cast<float>(-ZERO)));
        }
        if constexpr (type == GGML_TYPE_Q8_0) {
            for (int j = 0; j < 8; ++j) {
                const ints bytes = load_ints(p + j * WORDS);
                tile->q[j] = HAS_SIGNED_CODES ? bytes : bit_xor(bytes, splat_bytes(0x80));
            }
            return;
        }
        ints fifth{};
        if constexpr (HAS_FIFTH) {
            fifth = load_ints(p);
            p += WORDS;
        }
        for (int j = 0; j < 4; ++j) {
            const ints bytes = load_ints(p + j * WORDS);
            tile->q[j] = low_nibbles(bytes);
            tile->q[j + 4] = high_nibbles(bytes);
        }
        if constexpr (HAS_FIFTH) {
            tile->q[0] = bit_or(tile->q[0], fifth_bits<0>(fifth));
            tile->q[1] = bit_or(tile->q[1], fifth_bits<1>(fifth));
            tile->q[2] = bit_or(tile->q[2], fifth_bits<2>(fifth));
            tile->q[3] = bit_or(tile->q[3], fifth_bits<3>(fifth));
            tile->q[4] = bit_or(tile->q[4], fifth_bits<4>(fifth));
            tile->q[5] = bit_or(tile->q[5], fifth_bits<5>(fifth));
            tile->q[6] = bit_or(tile->q[6], fifth_bits<6>(fifth));
            tile->q[7] = bit_or(tile->q[7], fifth_bits<7>(fifth));
        }
        if constexpr (type == GGML_TYPE_IQ4_NL) {
            for (ints & q : tile->q) {
                q = look_up_values(q);
            }
        }
    }

  private:
    static constexpr bool HAS_FIFTH = type == GGML_TYPE_Q5_0 || type == GGML_TYPE_Q5_1;

    const char * next_;
};

#define LAZY_SMALL_BLOCKS(type, zero)                                                                                  \
    template <> class weight_rows<type> : public small_blocks<type, zero> {                                            \
        using small_blocks::small_blocks;                                                                              \
    }
LAZY_SMALL_BLOCKS(GGML_TYPE_Q4_0, 8);
LAZY_SMALL_BLOCKS(GGML_TYPE_Q4_1, 0);
LAZY_SMALL_BLOCKS(GGML_TYPE_Q5_0, 16);
LAZY_SMALL_BLOCKS(GGML_TYPE_Q5_1, 0);
LAZY_SMALL_BLOCKS(GGML_TYPE_Q8_0, 128);
LAZY_SMALL_BLOCKS(GGML_TYPE_IQ4_NL, 128);
#undef LAZY_SMALL_BLOCKS

// Four bytes of a word, from the lowest on, as floats.
template <int I> LAZY_INLINE floats byte_of(ints x) { return to_floats(bit_and(shift_right<8 * I>(x), splat(0xff))); }
template <int I> LAZY_INLINE floats signed_byte_of(ints x) {
    return to_floats(shift_right_signed<24>(shift_left<24 - 8 * I>(x)));
}

// Q4_K and Q5_K: blocks of 256, eight times 32 with a 6-bit scale and minimum each.
template <ggml_type type> class large_blocks {
  public:
    explicit large_blocks(const char * rows) : next_(rows) {}

    LAZY_INLINE void begin() { read_scales(); }
    LAZY_INLINE void next() { next_ += BLOCK_BYTES<type>; }

    template <int I> LAZY_INLINE void unpack(weight_tile * tile) const {
        const char * codes = next_ + HEAD_BYTES + FIFTH_BYTES + 8 * (I / 2) * WORDS;
        for (int j = 0; j < 8; ++j) {
            const ints bytes = load_ints(codes + j * WORDS);
            tile->q[j] = I % 2 == 0 ? low_nibbles(bytes) : high_nibbles(bytes);
            if constexpr (type == GGML_TYPE_Q5_K) {
                tile->q[j] = bit_or(tile->q[j], fifth_bits<I>(load_ints(next_ + HEAD_BYTES + j * WORDS)));
            }
        }
        tile->d = mul(d_, byte_of<I % 4>(scales_[I / 4]));
        tile->m = mul(minus_d_min_, byte_of<I % 4>(mins_[I / 4]));
    }

  private:
    static constexpr int HEAD_BYTES = 2 * HALVES + 3 * WORDS;
    static constexpr int FIFTH_BYTES = type == GGML_TYPE_Q5_K ? 8 * WORDS : 0;

    const char * next_;
    floats d_{}, minus_d_min_{};
    ints scales_[2]{}, mins_[2]{}; // four bytes each: of columns 0-127 and 128-255

    LAZY_INLINE void read_scales() {
        d_ = load_halves(next_);
        minus_d_min_ = sub(splat(0.0F), load_halves(next_ + HALVES));
        const char * p = next_ + 2 * HALVES;
        const ints a = load_ints(p);
        const ints b = load_ints(p + WORDS);
        const ints c = load_ints(p + 2 * WORDS);
        const ints six = splat_bytes(0x3f);
        const ints four = splat_bytes(0x0f);
        const ints two = splat_bytes(0x03);
        scales_[0] = bit_and(a, six);
        mins_[0] = bit_and(b, six);
        scales_[1] = bit_or(bit_and(c, four), shift_left<4>(bit_and(shift_right<6>(a), two)));
        mins_[1] = bit_or(bit_and(shift_right<4>(c), four), shift_left<4>(bit_and(shift_right<6>(b), two)));
    }
};

template <> class weight_rows<GGML_TYPE_Q4_K> : public large_blocks<GGML_TYPE_Q4_K> {
    using large_blocks::large_blocks;
};
template <> class weight_rows<GGML_TYPE_Q5_K> : public large_blocks<GGML_TYPE_Q5_K> {
    using large_blocks::large_blocks;
};

// The scales of both halves of a tile whose file has no minima. ZERO: the code that stands for 0.
template <int ZERO> LAZY_INLINE void set_halves(weight_tile * tile, floats d_low, floats d) {
    const floats minus_zero = splat(static_cast<float>(-ZERO));
    tile->d_low = d_low;
    tile->d = d;
    tile->m = mul(d, minus_zero);
    tile->m_diff = mul(sub(d_low, d), minus_zero);
}

// Q6_K: blocks of 256, sixteen times 16 with an 8-bit scale each.
template <> class weight_rows<GGML_TYPE_Q6_K> {
  public:
    explicit weight_rows(const char * rows) : next_(rows) {}

    LAZY_INLINE void begin() { d_ = load_halves(next_); }
    LAZY_INLINE void next() { next_ += BLOCK_BYTES<GGML_TYPE_Q6_K>; }

    template <int I> LAZY_INLINE void unpack(weight_tile * tile) const {
        constexpr int HALF = I / 4; // of the block
        constexpr int J = I % 4;    // quarter of that half
        const char * high = next_ + HALVES + 4 * WORDS + 8 * HALF * WORDS;
        const char * low = next_ + HALVES + 20 * WORDS + 16 * HALF * WORDS + J % 2 * 8 * WORDS;
        for (int j = 0; j < 8; ++j) {
            const ints bytes = load_ints(low + j * WORDS);
            const ints four = J < 2 ? low_nibbles(bytes) : high_nibbles(bytes);
            tile->q[j] = bit_or(four, two_bits<J>(load_ints(high + j * WORDS)));
        }
        const ints scales = load_ints(next_ + HALVES + I / 2 * WORDS);
        set_halves<32>(tile, mul(d_, signed_byte_of<I % 2 * 2>(scales)),
                       mul(d_, signed_byte_of<I % 2 * 2 + 1>(scales)));
    }

  private:
    const char * next_;
    floats d_{};

    // Bits 2 * J and 2 * J + 1 of each byte, as 16 and 32.
    template <int J> LAZY_INLINE static ints two_bits(ints x) {
        if constexpr (J == 0) {
            x = shift_left<4>(x);
        } else if constexpr (J == 1) {
            x = shift_left<2>(x);
        } else if constexpr (J == 3) {
            x = shift_right<2>(x);
        }
        return bit_and(x, splat_bytes(0x30));
    }
};

// Bits 2 * J and 2 * J + 1 of each byte.
template <int J> LAZY_INLINE ints low_two_bits(ints x) { return bit_and(shift_right<2 * J>(x), splat_bytes(3)); }

// Q2_K: blocks of 256, sixteen times 16 with a 4-bit scale and minimum each, in one byte.
template <> class weight_rows<GGML_TYPE_Q2_K> {
  public:
    explicit weight_rows(const char * rows) : next_(rows) {}

    LAZY_INLINE void begin() {
        d_ = load_halves(next_);
        minus_d_min_ = sub(splat(0.0F), load_halves(next_ + HALVES));
    }
    LAZY_INLINE void next() { next_ += BLOCK_BYTES<GGML_TYPE_Q2_K>; }

    template <int I> LAZY_INLINE void unpack(weight_tile * tile) const {
        const char * codes = next_ + 2 * HALVES + 4 * WORDS + I / 4 * 8 * WORDS;
        for (int j = 0; j < 8; ++j) {
            tile->q[j] = low_two_bits<I % 4>(load_ints(codes + j * WORDS));
        }
        const ints both = load_ints(next_ + 2 * HALVES + I / 2 * WORDS);
        const ints scales = low_nibbles(both);
        const ints mins = high_nibbles(both);
        constexpr int BYTE = I % 2 * 2;
        tile->d_low = mul(d_, byte_of<BYTE>(scales));
        tile->d = mul(d_, byte_of<BYTE + 1>(scales));
        tile->m = mul(minus_d_min_, byte_of<BYTE + 1>(mins));
        tile->m_diff = sub(mul(minus_d_min_, byte_of<BYTE>(mins)), tile->m);
    }

  private:
    const char * next_;
    floats d_{}, minus_d_min_{};
};

// Q3_K: blocks of 256, sixteen times 16 with a 6-bit scale each; the third bits of codes stand apart.
template <> class weight_rows<GGML_TYPE_Q3_K> {
  public:
    explicit weight_rows(const char * rows) : next_(rows) {}

    LAZY_INLINE void begin() {
        d_ = load_halves(next_);
        const ints a = load_ints(next_ + HALVES);
        const ints b = load_ints(next_ + HALVES + WORDS);
        const ints high = load_ints(next_ + HALVES + 2 * WORDS);
        scales_[0] = bit_or(low_nibbles(a), shift_left<4>(low_two_bits<0>(high)));
        scales_[1] = bit_or(low_nibbles(b), shift_left<4>(low_two_bits<1>(high)));
        scales_[2] = bit_or(high_nibbles(a), shift_left<4>(low_two_bits<2>(high)));
        scales_[3] = bit_or(high_nibbles(b), shift_left<4>(low_two_bits<3>(high)));
    }
    LAZY_INLINE void next() { next_ += BLOCK_BYTES<GGML_TYPE_Q3_K>; }

    template <int I> LAZY_INLINE void unpack(weight_tile * tile) const {
        const char * third = next_ + HALVES + 3 * WORDS;
        const char * codes = next_ + HALVES + 11 * WORDS + I / 4 * 8 * WORDS;
        for (int j = 0; j < 8; ++j) {
            const ints two = low_two_bits<I % 4>(load_ints(codes + j * WORDS));
            tile->q[j] = bit_or(two, third_bits<I>(load_ints(third + j * WORDS)));
        }
        const ints scales = scales_[I / 2];
        set_halves<4>(tile, mul(d_, scale<I % 2 * 2>(scales)), mul(d_, scale<I % 2 * 2 + 1>(scales)));
    }

  private:
    const char * next_;
    floats d_{};
    ints scales_[4]{}; // four bytes each, with 32 added

    template <int BYTE> LAZY_INLINE static floats scale(ints x) { return sub(byte_of<BYTE>(x), splat(32.0F)); }
    // Bit I of each byte, as 4.
    template <int I> LAZY_INLINE static ints third_bits(ints x) {
        if constexpr (I > 2) {
            x = shift_right<I - 2>(x);
        } else if constexpr (I < 2) {
            x = shift_left<2 - I>(x);
        }
        return bit_and(x, splat_bytes(4));
    }
};

// IQ4_XS: blocks of 256, eight times 32 with a 6-bit scale each.
template <> class weight_rows<GGML_TYPE_IQ4_XS> {
  public:
    explicit weight_rows(const char * rows) : next_(rows) {}

    LAZY_INLINE void begin() {
        d_ = load_halves(next_);
        high_ = load_short_ints(next_ + HALVES);
        low_ = load_ints(next_ + 2 * HALVES);
    }
    LAZY_INLINE void next() { next_ += BLOCK_BYTES<GGML_TYPE_IQ4_XS>; }

    template <int I> LAZY_INLINE void unpack(weight_tile * tile) const {
        const char * codes = next_ + 2 * HALVES + WORDS + 4 * I * WORDS;
        for (int j = 0; j < 4; ++j) {
            const ints bytes = load_ints(codes + j * WORDS);
            tile->q[j] = look_up_values(low_nibbles(bytes));
            tile->q[j + 4] = look_up_values(high_nibbles(bytes));
        }
        const ints high = shift_left<4>(bit_and(shift_right<2 * I>(high_), splat(3)));
        const ints scale = bit_or(bit_and(shift_right<4 * I>(low_), splat(15)), high);
        tile->d = mul(d_, sub(to_floats(scale), splat(32.0F)));
        tile->m = mul(tile->d, splat(-128.0F)); // read where codes are unsigned
    }

  private:
    const char * next_;
    floats d_{};
    ints high_{}, low_{}; // bits of the scales
};

} // namespace lazygguf::LAZY_ISA
