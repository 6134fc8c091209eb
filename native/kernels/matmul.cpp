// matmul.cpp: the layout of matrices, and nodes of the graph that run the matmul kernels of this CPU.

#include "kernels/matmul.h"

#include <algorithm>
#include <cstring>

#include "kernels/isa.h"
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
template <typename T> char * pack_words(const packed_field & field, const char * const * rows, int n_lanes, char * out) {
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

bool has_matmul(ggml_type type, int64_t n_in, int64_t n_out) {
    return kernels().matmul.multiply(type) != nullptr && n_in % ggml_blck_size(type) == 0 && n_out > 0;
}

bool takes_floats(ggml_type type) { return !ggml_is_quantized(type); }

size_t packed_matrix_size(ggml_type type, int64_t n_in, int64_t n_out) {
    const int64_t n_lanes = kernels().matmul.n_lanes;
    return ggml_row_size(type, n_in) * static_cast<size_t>((n_out + n_lanes - 1) / n_lanes * n_lanes);
}

void pack_matrix(ggml_type type, int64_t n_in, int64_t n_out, const char * rows, char * out, int part, int n_parts) {
    constexpr int MAX_LANES = 16;
    const int n_lanes = kernels().matmul.n_lanes;
    const packed_block layout = packed_block_of(type);
    const size_t row_size = ggml_row_size(type, n_in);
    const size_t block_size = ggml_type_size(type);
    const int64_t n_tiles = (n_out + n_lanes - 1) / n_lanes;
    for (int64_t tile = n_tiles * part / n_parts; tile < n_tiles * (part + 1) / n_parts; ++tile) {
        char * to = out + static_cast<size_t>(tile * n_lanes) * row_size;
        for (size_t offset = 0; offset < row_size; offset += block_size) {
            const char * blocks[MAX_LANES] = {};
            for (int lane = 0; lane < n_lanes && tile * n_lanes + lane < n_out; ++lane) {
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

ggml_tensor * build_packed_rows(ggml_context * ctx, ggml_tensor * x, bool as_floats) {
    const matmul_kernels & k = kernels().matmul;
    ggml_tensor * args[] = {x};
    const int64_t n_bytes = k.packed_size(x->ne[0], x->ne[1], as_floats);
    return ggml_custom_4d(ctx, GGML_TYPE_I8, n_bytes / x->ne[1], x->ne[1], 1, 1, args, 1,
                          as_floats ? k.pack_floats : k.pack_bytes, GGML_N_TASKS_MAX, nullptr);
}

ggml_tensor * build_matmul(ggml_context * ctx, ggml_tensor * matrix, ggml_tensor * packed, matmul_op & op) {
    ggml_tensor * args[] = {matrix, packed};
    return ggml_custom_4d(ctx, GGML_TYPE_F32, op.n_out, packed->ne[1], 1, 1, args, 2,
                          kernels().matmul.multiply(op.type), GGML_N_TASKS_MAX, &op);
}

} // namespace lazygguf
