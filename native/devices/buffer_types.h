// buffer_types.h: in which of a device's buffers a matrix is multiplied fastest by ggml.
#pragma once

#include <cstdint>

#include <ggml-cpp.h>

namespace lazygguf {

// Would `dev` multiply a matrix [ne0, ne1] of this type with rows, the matrix lying in a buffer of this type?
bool multiplies(ggml_backend_dev_t dev, ggml_type type, ggml_backend_buffer_type_t buft, int64_t ne0, int64_t ne1);

// A buffer type with faster kernels than the plain one (CPU_REPACK, KleidiAI) if there is one for such a matrix, else
// the plain one.
ggml_backend_buffer_type_t fastest_buft(ggml_backend_dev_t dev, ggml_type type, int64_t ne0, int64_t ne1);

} // namespace lazygguf
