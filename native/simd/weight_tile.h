// weight_tile.h: a few rows of a quantized matrix, 32 columns at a time, as bytes ready to be multiplied.
//
// Reads the layout of packed_layout.h. Every type becomes the same thing: weight = d * code + m, with d and m by row;
// Q6_K has a d for each half of the 32 columns.
#pragma once

#include <ggml.h>

#include "simd/lanes.h"

namespace lazygguf::LAZY_ISA {

struct weight_tile {
    ints q[8];     // codes of four columns each, a lane per row
    floats d;      // of all 32 columns, or of the last 16
    floats m;      // the same
    floats d_low;  // Q6_K: of the first 16
    floats m_diff; // Q6_K: m of the first 16, less m of the last
};

constexpr int WORDS = 4 * N_LANES;  // bytes of a word of four bytes, all rows
constexpr int HALVES = 2 * N_LANES; // of one of two bytes

// What a type is: its largest code, whether it has m, and how many tiles are unpacked at once.
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
template <> struct traits<GGML_TYPE_Q4_K> : traits_of<15, true, 2> {};
template <> struct traits<GGML_TYPE_Q5_K> : traits_of<31, true, 2> {};
template <> struct traits<GGML_TYPE_Q6_K> : traits_of<63, true, 4> {};

constexpr bool has_halves(ggml_type type) { return type == GGML_TYPE_Q6_K; }

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

// The rows of one tile; unpack(i) gives the tiles from block i * N_TILES of 32 columns on. In order.
template <ggml_type type> class weight_rows;

// The types whose blocks have 32 weights. ZERO: the code that stands for 0, where there is no m in the file.
template <ggml_type type, int ZERO> class small_blocks {
  public:
    explicit small_blocks(const char * rows) : next_(rows) {}

    LAZY_INLINE void unpack(int /*i*/, weight_tile * tile) {
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
            next_ = p + 8 * WORDS;
            return;
        }
        constexpr bool HAS_FIFTH = type == GGML_TYPE_Q5_0 || type == GGML_TYPE_Q5_1;
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
            // the sixteen values of the type; with 128 added where codes are unsigned
            constexpr int8_t VALUES[] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
            for (ints & q : tile->q) {
                q = HAS_SIGNED_CODES ? look_up(VALUES, q) : bit_xor(look_up(VALUES, q), splat_bytes(0x80));
            }
        }
        next_ = p + 4 * WORDS;
    }

  private:
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

    // Two tiles: their codes share bytes.
    LAZY_INLINE void unpack(int i, weight_tile * tiles) {
        switch (i % 4) {
            case 0:
                read_scales();
                unpack_two<0>(tiles);
                break;
            case 1: unpack_two<1>(tiles); break;
            case 2: unpack_two<2>(tiles); break;
            default:
                unpack_two<3>(tiles);
                next_ += BLOCK_BYTES;
                break;
        }
    }

  private:
    static constexpr int HEAD_BYTES = 2 * HALVES + 3 * WORDS;
    static constexpr int FIFTH_BYTES = type == GGML_TYPE_Q5_K ? 8 * WORDS : 0;
    static constexpr int BLOCK_BYTES = HEAD_BYTES + FIFTH_BYTES + 32 * WORDS;

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

    template <int PAIR> LAZY_INLINE void unpack_two(weight_tile * tiles) {
        const char * codes = next_ + HEAD_BYTES + FIFTH_BYTES + 8 * PAIR * WORDS;
        for (int j = 0; j < 8; ++j) {
            const ints bytes = load_ints(codes + j * WORDS);
            tiles[0].q[j] = low_nibbles(bytes);
            tiles[1].q[j] = high_nibbles(bytes);
            if constexpr (type == GGML_TYPE_Q5_K) {
                const ints fifth = load_ints(next_ + HEAD_BYTES + j * WORDS);
                tiles[0].q[j] = bit_or(tiles[0].q[j], fifth_bits<2 * PAIR>(fifth));
                tiles[1].q[j] = bit_or(tiles[1].q[j], fifth_bits<2 * PAIR + 1>(fifth));
            }
        }
        const ints scales = scales_[PAIR / 2];
        const ints mins = mins_[PAIR / 2];
        constexpr int BYTE = PAIR % 2 * 2;
        tiles[0].d = mul(d_, byte_of<BYTE>(scales));
        tiles[0].m = mul(minus_d_min_, byte_of<BYTE>(mins));
        tiles[1].d = mul(d_, byte_of<BYTE + 1>(scales));
        tiles[1].m = mul(minus_d_min_, byte_of<BYTE + 1>(mins));
    }
};

template <> class weight_rows<GGML_TYPE_Q4_K> : public large_blocks<GGML_TYPE_Q4_K> {
    using large_blocks::large_blocks;
};
template <> class weight_rows<GGML_TYPE_Q5_K> : public large_blocks<GGML_TYPE_Q5_K> {
    using large_blocks::large_blocks;
};

// Q6_K: blocks of 256, sixteen times 16 with an 8-bit scale each.
template <> class weight_rows<GGML_TYPE_Q6_K> {
  public:
    explicit weight_rows(const char * rows) : next_(rows) {}

    // Four tiles: their codes share bytes.
    LAZY_INLINE void unpack(int i, weight_tile * tiles) {
        const int half = i % 2;
        const char * high = next_ + HALVES + 4 * WORDS + 8 * half * WORDS;
        const char * low = next_ + HALVES + 20 * WORDS + 16 * half * WORDS;
        const ints two = splat_bytes(0x30);
        for (int j = 0; j < 8; ++j) {
            const ints h = load_ints(high + j * WORDS);
            const ints a = load_ints(low + j * WORDS);
            const ints b = load_ints(low + (j + 8) * WORDS);
            tiles[0].q[j] = bit_or(low_nibbles(a), bit_and(shift_left<4>(h), two));
            tiles[1].q[j] = bit_or(low_nibbles(b), bit_and(shift_left<2>(h), two));
            tiles[2].q[j] = bit_or(high_nibbles(a), bit_and(h, two));
            tiles[3].q[j] = bit_or(high_nibbles(b), bit_and(shift_right<2>(h), two));
        }
        const floats d = load_halves(next_);
        const char * scales = next_ + HALVES + 2 * half * WORDS;
        set_scales(tiles, d, load_ints(scales));
        set_scales(tiles + 2, d, load_ints(scales + WORDS));
        next_ += half * BLOCK_BYTES;
    }

  private:
    static constexpr int BLOCK_BYTES = HALVES + 52 * WORDS;

    const char * next_;

    // Four scales, for the halves of two tiles.
    LAZY_INLINE static void set_scales(weight_tile * tiles, floats d, ints scales) {
        const floats minus_zero = splat(-32.0F);
        tiles[0].d_low = mul(d, signed_byte_of<0>(scales));
        tiles[0].d = mul(d, signed_byte_of<1>(scales));
        tiles[1].d_low = mul(d, signed_byte_of<2>(scales));
        tiles[1].d = mul(d, signed_byte_of<3>(scales));
        for (int i = 0; i < 2; ++i) {
            tiles[i].m = mul(tiles[i].d, minus_zero);
            tiles[i].m_diff = mul(sub(tiles[i].d_low, tiles[i].d), minus_zero);
        }
    }
};

} // namespace lazygguf::LAZY_ISA
