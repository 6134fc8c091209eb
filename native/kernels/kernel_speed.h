// kernel_speed.h: how fast a device multiplies many rows with weights of one type in one kind of buffer.
//
// Owns the measurement, made once per process and kind: kernels differ severalfold between types and CPUs, and which
// is fast where is not written down anywhere.
#pragma once

#include <cstdint>

#include <ggml-cpp.h>

namespace lazygguf {

struct kernel {
    ggml_type type;
    ggml_backend_buffer_type_t buft;
    bool is_ours = false; // matmul.h's instead of the device's own
};

// Would `dev` multiply a matrix [ne0, ne1] of this kind with F32 rows?
bool is_supported(ggml_backend_dev_t dev, const kernel & k, int64_t ne0, int64_t ne1);

// How many rows are multiplied at once: those of a prompt, or the one of a decode step.
constexpr int64_t MANY_ROWS = 128;
constexpr int64_t ONE_ROW = 1;

// Floating point operations per second of one thread; 0 where the device lacks the kernel.
double kernel_speed(ggml_backend_dev_t dev, const kernel & k, int64_t n_rows = MANY_ROWS);

} // namespace lazygguf
