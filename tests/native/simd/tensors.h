// tensors.h: tensors with memory of their own, and what the kernels call of ggml, without ggml.
#pragma once

#include <cstdint>
#include <vector>

#include <ggml.h>

constexpr int Q8_BLOCK = 32;
struct q8_block {
    ggml_fp16_t scale;
    int8_t values[Q8_BLOCK];
};

float half_to_float(ggml_fp16_t h);
ggml_fp16_t float_to_half(float x); // cut off, not rounded: any half float near x will do

struct tensor : ggml_tensor {
    std::vector<char> bytes; // NaN where nothing is written

    tensor(ggml_type element, int64_t n0, int64_t n1, int64_t n2 = 1, int64_t n3 = 1);
    tensor(const tensor &) = delete;
    tensor & operator=(const tensor &) = delete;

    char * at(int64_t i1, int64_t i2) {
        return static_cast<char *>(data) + static_cast<size_t>(i1) * nb[1] + static_cast<size_t>(i2) * nb[2];
    }
    float * floats(int64_t i1, int64_t i2 = 0) { return reinterpret_cast<float *>(at(i1, i2)); }
};

void run(ggml_custom_op_t op, tensor & dst, const std::vector<ggml_tensor *> & src, int n_threads, void * userdata);
