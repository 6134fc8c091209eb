// kernel_speed.h: how long a kernel takes, ours or ggml's. For those who make the table in choice.cpp: nothing is
// measured while a model is opened.
#pragma once

#include <cstdint>

#include <ggml.h>

namespace lazygguf {

struct kernel_case {
    ggml_type type;
    int64_t n_in;
    int64_t n_out;
    int64_t n_rows;
    bool is_ours; // else ggml's, from the buffers in which it is fastest
    int n_threads;
};

// Seconds of one multiplication of a matrix of noise, the best of several; 0 where there is no such kernel.
double kernel_seconds(const kernel_case & wanted);

} // namespace lazygguf
