// tensors.cpp: memory, and stand-ins for the functions of ggml that the kernels call.

#include "tensors.h"

#include <algorithm>
#include <cmath>
#include <thread>

namespace {

// Block sizes of the types that the kernels know: weights and bytes.
struct block_size {
    ggml_type type;
    int n;
    size_t n_bytes;
};
constexpr block_size BLOCKS[] = {
    {GGML_TYPE_F32, 1, 4},      {GGML_TYPE_F16, 1, 2},        {GGML_TYPE_BF16, 1, 2},     {GGML_TYPE_I8, 1, 1},
    {GGML_TYPE_I32, 1, 4},      {GGML_TYPE_Q4_0, 32, 18},     {GGML_TYPE_Q4_1, 32, 20},   {GGML_TYPE_Q5_0, 32, 22},
    {GGML_TYPE_Q5_1, 32, 24},   {GGML_TYPE_Q8_0, 32, 34},     {GGML_TYPE_IQ4_NL, 32, 18}, {GGML_TYPE_Q2_K, 256, 84},
    {GGML_TYPE_Q3_K, 256, 110}, {GGML_TYPE_IQ4_XS, 256, 136}, {GGML_TYPE_Q4_K, 256, 144}, {GGML_TYPE_Q5_K, 256, 176},
    {GGML_TYPE_Q6_K, 256, 210},
};

const block_size & block_of(ggml_type type) {
    return *std::find_if(std::begin(BLOCKS), std::end(BLOCKS), [type](const block_size & b) { return b.type == type; });
}

void halves_to_floats(const void * x, float * y, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        y[i] = half_to_float(static_cast<const ggml_fp16_t *>(x)[i]);
    }
}

void q8_to_floats(const void * x, float * y, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        const q8_block & b = static_cast<const q8_block *>(x)[i / Q8_BLOCK];
        y[i] = half_to_float(b.scale) * static_cast<float>(b.values[i % Q8_BLOCK]);
    }
}

} // namespace

const ggml_type_traits * ggml_get_type_traits(ggml_type type) {
    static ggml_type_traits traits;
    traits.to_float = type == GGML_TYPE_F16 ? halves_to_floats : type == GGML_TYPE_Q8_0 ? q8_to_floats : nullptr;
    return &traits;
}
int64_t ggml_blck_size(ggml_type type) { return block_of(type).n; }
size_t ggml_type_size(ggml_type type) { return block_of(type).n_bytes; }
size_t ggml_row_size(ggml_type type, int64_t n) {
    return static_cast<size_t>(n) / static_cast<size_t>(block_of(type).n) * block_of(type).n_bytes;
}
float ggml_fp16_to_fp32(ggml_fp16_t x) { return half_to_float(x); }

float half_to_float(ggml_fp16_t h) {
    const int exponent = h >> 10 & 31;
    if (exponent == 31) {
        return (h & 1023) != 0 ? NAN : (h & 0x8000) != 0 ? -HUGE_VALF : HUGE_VALF;
    }
    const float size = exponent == 0 ? std::ldexp(static_cast<float>(h & 1023), -24)
                                     : std::ldexp(1.0F + static_cast<float>(h & 1023) / 1024.0F, exponent - 15);
    return (h & 0x8000) != 0 ? -size : size;
}

ggml_fp16_t float_to_half(float x) {
    int exponent = 0;
    const float fraction = std::frexp(std::fabs(x), &exponent); // in [0.5, 1)
    if (exponent < -13) {
        return 0;
    }
    const auto bits = static_cast<uint32_t>((fraction * 2.0F - 1.0F) * 1024.0F);
    return static_cast<ggml_fp16_t>((x < 0.0F ? 0x8000U : 0U) | static_cast<uint32_t>(exponent + 14) << 10 | bits);
}

tensor::tensor(ggml_type element, int64_t n0, int64_t n1, int64_t n2, int64_t n3) : ggml_tensor() {
    type = element;
    const int64_t sizes[] = {n0, n1, n2, n3};
    for (int i = 0; i < 4; ++i) {
        ne[i] = sizes[i];
        nb[i] = i == 0 ? 1 : i == 1 ? ggml_row_size(element, n0) : nb[i - 1] * static_cast<size_t>(ne[i - 1]);
    }
    bytes.assign(nb[3] * static_cast<size_t>(n3) + 64, static_cast<char>(0xff));
    data = bytes.data() + (64 - reinterpret_cast<uintptr_t>(bytes.data()) % 64);
}

void run(ggml_custom_op_t op, tensor & dst, const std::vector<ggml_tensor *> & src, int n_threads, void * userdata) {
    std::copy(src.begin(), src.end(), dst.src);
    std::vector<std::thread> threads;
    for (int i = 1; i < n_threads; ++i) {
        threads.emplace_back(op, &dst, i, n_threads, userdata);
    }
    op(&dst, 0, n_threads, userdata);
    for (std::thread & t : threads) {
        t.join();
    }
}
