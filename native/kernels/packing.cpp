// packing.cpp: from the file's layout to the kernels'.

#include "kernels/packing.h"

#include <cstring>

#include "simd/packed_layout.h"

namespace lazygguf {
namespace {

// Bit j of byte k: that of column 4 * j + k.
uint32_t spread_fifth_bits(uint32_t bits) {
    uint32_t out = 0;
    for (int column = 0; column < 32; ++column) {
        out |= (bits >> column & 1U) << (column % 4 * 8 + column / 4);
    }
    return out;
}

// The words of one field of a block, of every row. A word of type T.
template <typename T>
char * pack_words(const packed_field & field, const char * const * rows, int n_lanes, char * out) {
    for (int w = 0; w < field.n_words; ++w) {
        for (int lane = 0; lane < n_lanes; ++lane) {
            T word = 0;
            if (rows[lane] != nullptr) {
                std::memcpy(&word, rows[lane] + field.offset + w * field.word_size, sizeof word);
            }
            if (field.is_fifth_bits) {
                word = static_cast<T>(spread_fifth_bits(word));
            }
            std::memcpy(out, &word, sizeof word);
            out += sizeof word;
        }
    }
    return out;
}

} // namespace

void pack_tiles(const matrix_shape & matrix, int n_lanes, const char * rows, char * out, int part, int n_parts) {
    constexpr int MAX_LANES = 16;
    const packed_block layout = packed_block_of(matrix.type);
    const size_t row_size = ggml_row_size(matrix.type, matrix.n_in);
    const size_t block_size = ggml_type_size(matrix.type);
    const int64_t n_tiles = (matrix.n_out + n_lanes - 1) / n_lanes;
    for (int64_t tile = n_tiles * part / n_parts; tile < n_tiles * (part + 1) / n_parts; ++tile) {
        char * to = out + static_cast<size_t>(tile * n_lanes) * row_size;
        for (size_t offset = 0; offset < row_size; offset += block_size) {
            const char * blocks[MAX_LANES] = {};
            for (int lane = 0; lane < n_lanes && tile * n_lanes + lane < matrix.n_out; ++lane) {
                blocks[lane] = rows + static_cast<size_t>(tile * n_lanes + lane) * row_size + offset;
            }
            for (int f = 0; f < layout.n_fields; ++f) {
                const packed_field & field = layout.fields[f];
                to = field.word_size == 2 ? pack_words<uint16_t>(field, blocks, n_lanes, to)
                                          : pack_words<uint32_t>(field, blocks, n_lanes, to);
            }
        }
    }
}

} // namespace lazygguf
