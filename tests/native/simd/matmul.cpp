// matmul.cpp: the matmul kernels of one instruction set against plain sums in double precision, for every type, and
// against themselves: a row alone, in company and by several threads has the same bits.

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "../check.h"
#include "kernels/packing.h"
#include "simd/kernel_set.h"
#include "simd/matmul_op.h"
#include "tensors.h"

using namespace lazygguf;

namespace {

const matmul_kernels KERNELS = lazygguf::LAZY_ISA::matmul();

constexpr ggml_type TYPES[] = {
    GGML_TYPE_F32,  GGML_TYPE_F16,  GGML_TYPE_BF16, GGML_TYPE_Q4_0,   GGML_TYPE_Q4_1,
    GGML_TYPE_Q5_0, GGML_TYPE_Q5_1, GGML_TYPE_Q8_0, GGML_TYPE_Q2_K,   GGML_TYPE_Q3_K,
    GGML_TYPE_Q4_K, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K, GGML_TYPE_IQ4_NL, GGML_TYPE_IQ4_XS,
};

bool is_float(ggml_type type) { return ggml_blck_size(type) == 1; }

double half_at(const uint8_t * p) {
    ggml_fp16_t h;
    std::memcpy(&h, p, sizeof h);
    return half_to_float(h);
}

// Weight i of a block, as the formats' descriptions say it, one by one.
double weight_of(ggml_type type, const uint8_t * block, int i) {
    const auto nibble = [i](const uint8_t * q) { return i < 16 ? q[i] & 15 : q[i - 16] >> 4; };
    const auto fifth = [i](const uint8_t * bits) { return (bits[i / 8] >> i % 8 & 1) << 4; };
    constexpr int CODES[] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    switch (type) {
        case GGML_TYPE_F32: {
            float x;
            std::memcpy(&x, block, sizeof x);
            return x;
        }
        case GGML_TYPE_F16: return half_at(block);
        case GGML_TYPE_BF16: {
            const uint8_t bytes[] = {0, 0, block[0], block[1]};
            float x;
            std::memcpy(&x, bytes, sizeof x);
            return x;
        }
        case GGML_TYPE_Q4_0: return half_at(block) * (nibble(block + 2) - 8);
        case GGML_TYPE_IQ4_NL: return half_at(block) * CODES[nibble(block + 2)];
        case GGML_TYPE_Q4_1: return half_at(block) * nibble(block + 4) + half_at(block + 2);
        case GGML_TYPE_Q5_0: return half_at(block) * ((nibble(block + 6) | fifth(block + 2)) - 16);
        case GGML_TYPE_Q5_1: return half_at(block) * (nibble(block + 8) | fifth(block + 4)) + half_at(block + 2);
        case GGML_TYPE_Q8_0: return half_at(block) * static_cast<int8_t>(block[2 + i]);
        case GGML_TYPE_Q4_K:
        case GGML_TYPE_Q5_K: {
            const int j = i / 32;
            const uint8_t * s = block + 4;
            const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
            const int least = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
            const uint8_t * q = block + (type == GGML_TYPE_Q4_K ? 16 : 48) + j / 2 * 32 + i % 32;
            int code = j % 2 == 0 ? *q & 15 : *q >> 4;
            if (type == GGML_TYPE_Q5_K) {
                code |= (block[16 + i % 32] >> j & 1) << 4;
            }
            return half_at(block) * scale * code - half_at(block + 2) * least;
        }
        case GGML_TYPE_Q2_K: {
            const int code = block[16 + i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
            return half_at(block + 80) * (block[i / 16] & 15) * code - half_at(block + 82) * (block[i / 16] >> 4);
        }
        case GGML_TYPE_Q3_K: {
            const int code = block[32 + i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
            const int third = block[i % 32] >> i / 32 & 1;
            const int j = i / 16;
            const uint8_t * s = block + 96;
            const int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
            const int scale = (low | (s[8 + j % 4] >> j / 4 * 2 & 3) << 4) - 32;
            return half_at(block + 108) * scale * (code + 4 * third - 4);
        }
        case GGML_TYPE_IQ4_XS: {
            const int j = i / 32;
            const int high = (block[2] | block[3] << 8) >> 2 * j & 3;
            const int scale = (block[4 + j / 2] >> j % 2 * 4 & 15 | high << 4) - 32;
            const uint8_t byte = block[8 + 16 * j + i % 16];
            return half_at(block) * scale * CODES[i % 32 < 16 ? byte & 15 : byte >> 4];
        }
        default: { // Q6_K
            const int half = i / 128;
            const int quarter = i % 128 / 32;
            const uint8_t low = block[64 * half + quarter % 2 * 32 + i % 32];
            const uint8_t high = block[128 + 32 * half + i % 32];
            const int code = (quarter < 2 ? low & 15 : low >> 4) | (high >> 2 * quarter & 3) << 4;
            return half_at(block + 208) * static_cast<int8_t>(block[192 + i / 16]) * (code - 32);
        }
    }
}

// Bytes at random, with scales that are numbers of a common size.
std::vector<uint8_t> matrix_of(ggml_type type, int n_in, int n_out, std::mt19937 & random) {
    const size_t block = ggml_type_size(type);
    std::vector<uint8_t> bytes(ggml_row_size(type, n_in) * static_cast<size_t>(n_out));
    for (uint8_t & b : bytes) {
        b = static_cast<uint8_t>(random());
    }
    std::uniform_real_distribution<float> size(0.01F, 0.02F);
    for (size_t i = 0; i < bytes.size(); i += block) {
        const float x = random() % 2 == 0 ? size(random) : -size(random);
        const ggml_fp16_t scales[] = {float_to_half(x), float_to_half(size(random))};
        switch (type) {
            case GGML_TYPE_F32: std::memcpy(&bytes[i], &x, sizeof x); break;
            case GGML_TYPE_BF16: std::memcpy(&bytes[i], reinterpret_cast<const char *>(&x) + 2, 2); break;
            case GGML_TYPE_Q4_1:
            case GGML_TYPE_Q5_1:
            case GGML_TYPE_Q4_K:
            case GGML_TYPE_Q5_K: std::memcpy(&bytes[i], scales, 4); break;
            case GGML_TYPE_Q2_K: std::memcpy(&bytes[i + 80], scales, 4); break;
            case GGML_TYPE_Q3_K: std::memcpy(&bytes[i + 108], scales, 2); break;
            case GGML_TYPE_Q6_K: std::memcpy(&bytes[i + 208], scales, 2); break;
            default: std::memcpy(&bytes[i], scales, 2); break;
        }
    }
    return bytes;
}

// A matrix and rows whose blocks are whole numbers of one size up to 127: rounded to bytes they are the same.
class problem {
  public:
    problem(ggml_type type, int n_in, int n_out, int n_rows)
        : type_(type), n_in_(n_in), n_out_(n_out), x_(GGML_TYPE_F32, n_in, n_rows) {
        std::mt19937 random(static_cast<uint32_t>(n_in * 31 + n_out));
        bytes_ = matrix_of(type, n_in, n_out, random);
        for (int t = 0; t < n_rows; ++t) {
            for (int i = 0; i < n_in; ++i) {
                const int whole = i % 32 == 5 ? 127 : static_cast<int>(random() % 255) - 127;
                x_.floats(t)[i] = std::ldexp(static_cast<float>(whole), -10 + i / 32 % 4);
            }
        }
        const int64_t n_tiles = (n_out + KERNELS.n_lanes - 1) / KERNELS.n_lanes;
        packed_.resize(ggml_row_size(type, n_in) * static_cast<size_t>(n_tiles * KERNELS.n_lanes));
        for (int part = 0; part < 3; ++part) {
            pack_tiles({type, n_in, n_out}, KERNELS.n_lanes, reinterpret_cast<const char *>(bytes_.data()),
                       packed_.data(), part, 3);
        }
    }

    void put(int row, int column, float x) { x_.floats(row)[column] = x; }

    // F32 [n_out, n] of rows [first, first + n)
    std::vector<float> multiply(int first, int n, int n_threads) {
        tensor rows(GGML_TYPE_F32, n_in_, n);
        std::memcpy(rows.data, x_.floats(first), static_cast<size_t>(n) * x_.nb[1]);
        const int64_t n_bytes = KERNELS.packed_size(n_in_, n, is_float(type_));
        tensor packed(GGML_TYPE_I8, n_bytes, 1);
        run(is_float(type_) ? KERNELS.pack_floats : KERNELS.pack_bytes, packed, {&rows}, n_threads, nullptr);
        tensor weights(GGML_TYPE_I8, static_cast<int64_t>(packed_.size()), 1);
        std::memcpy(weights.data, packed_.data(), packed_.size());
        tensor out(GGML_TYPE_F32, n_out_, n);
        matmul_op op(type_, n_in_, n_out_);
        run(KERNELS.multiply(type_), out, {&weights, &packed}, n_threads, &op);
        return {out.floats(0), out.floats(0) + static_cast<size_t>(n_out_) * static_cast<size_t>(n)};
    }

    // The worst error of all products, as a part of the size of their sum's terms.
    double error_of(const std::vector<float> & got) {
        const size_t block = ggml_type_size(type_);
        const auto n_block = static_cast<int>(ggml_blck_size(type_));
        double worst = 0;
        for (size_t at = 0; at < got.size(); ++at) {
            const size_t o = at % static_cast<size_t>(n_out_);
            const float * x = x_.floats(static_cast<int64_t>(at) / n_out_);
            double sum = 0;
            double size = 0;
            for (int i = 0; i < n_in_; ++i) {
                const uint8_t * row = bytes_.data() + o * ggml_row_size(type_, n_in_);
                const double term =
                    weight_of(type_, row + static_cast<size_t>(i / n_block) * block, i % n_block) * x[i];
                sum += term;
                size += std::fabs(term);
            }
            const double error = std::fabs(sum - static_cast<double>(got[at])) / size;
            worst = error <= worst ? worst : error; // NaN is an error
        }
        return worst;
    }

  private:
    ggml_type type_;
    int n_in_;
    int n_out_;
    std::vector<uint8_t> bytes_;
    std::vector<char> packed_;
    tensor x_;
};

} // namespace

CASE("products are the plain sums, for every type and any number of matrix rows") {
    for (const ggml_type type : TYPES) {
        for (const int n_out : {1, 16, 37}) {
            for (const int n_in : {256, 1280}) {
                problem p(type, n_in, n_out, 9);
                CHECK_EQ(p.error_of(p.multiply(0, 9, 1)) < 1e-6, true);
                CHECK_EQ(p.error_of(p.multiply(0, 1, 1)) < 1e-6, true);
            }
        }
    }
}

CASE("a row has the same bits whatever rows are multiplied with it") {
    constexpr int N_ROWS = 21;
    for (const ggml_type type : TYPES) {
        problem p(type, 768, 37, N_ROWS);
        std::vector<float> alone;
        for (int t = 0; t < N_ROWS; ++t) {
            const std::vector<float> one = p.multiply(t, 1, 1);
            alone.insert(alone.end(), one.begin(), one.end());
        }
        for (int n = 2; n <= N_ROWS; ++n) {
            const std::vector<float> together = p.multiply(0, n, 1);
            CHECK_EQ(std::memcmp(together.data(), alone.data(), together.size() * sizeof(float)), 0);
        }
    }
}

CASE("any number of threads gives the same bits") {
    for (const ggml_type type : TYPES) {
        problem p(type, 512, 200, 11);
        for (const int n_rows : {1, 3, 11}) {
            const std::vector<float> one = p.multiply(0, n_rows, 1);
            for (const int n_threads : {2, 3, 5}) {
                const std::vector<float> several = p.multiply(0, n_rows, n_threads);
                CHECK_EQ(std::memcmp(several.data(), one.data(), one.size() * sizeof(float)), 0);
            }
        }
    }
}

CASE("a row that is not finite gives no finite product, and its neighbours do") {
    for (const ggml_type type : TYPES) {
        for (const float wrong : {HUGE_VALF, -HUGE_VALF, NAN}) {
            problem p(type, 256, 8, 3);
            p.put(1, 100, wrong);
            const std::vector<float> got = p.multiply(0, 3, 1);
            for (size_t i = 0; i < got.size(); ++i) {
                CHECK_EQ(std::isfinite(got[i]), i / 8 != 1);
            }
        }
    }
}
