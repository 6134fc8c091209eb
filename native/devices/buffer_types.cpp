// buffer_types.cpp: devices are asked with operations on tensors that have no memory.

#include "devices/buffer_types.h"

#include <cstring>
#include <vector>

#include "devices/context.h"
#include "devices/device_proc.h"

namespace lazygguf {
namespace {

// Buffer types with faster kernels than the plain one (CPU_REPACK, KleidiAI), best first. Not AMX: compiled by GCC 12,
// those kernels of ggml 0.25.3 end the process with an illegal instruction (findings/gcc12-amx-tile-config.sh), and
// nothing tells beforehand.
std::vector<ggml_backend_buffer_type_t> extra_bufts(ggml_backend_dev_t dev) {
    std::vector<ggml_backend_buffer_type_t> bufts;
    auto get = device_proc<ggml_backend_dev_get_extra_bufts_t>(dev, "ggml_backend_dev_get_extra_bufts");
    for (ggml_backend_buffer_type_t * b = get ? get(dev) : nullptr; b && *b; ++b) {
        if (std::strcmp(ggml_backend_buft_name(*b), "AMX") != 0) {
            bufts.push_back(*b);
        }
    }
    return bufts;
}

} // namespace

bool multiplies(ggml_backend_dev_t dev, ggml_type type, ggml_backend_buffer_type_t buft, int64_t ne0, int64_t ne1) {
    const context_ptr ctx = make_tensor_context(4);
    ggml_tensor * w = ggml_new_tensor_2d(ctx.get(), type, ne0, ne1);
    ggml_tensor * op = ggml_mul_mat(ctx.get(), w, ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, ne0, 512));
    // support depends on the buffer's type, so the question is asked with an empty buffer of that type
    ggml_backend_buffer_ptr buffer(ggml_backend_buft_alloc_buffer(buft, 0));
    w->buffer = buffer.get();
    const bool ok = ggml_backend_dev_supports_op(dev, op);
    w->buffer = nullptr;
    return ok;
}

ggml_backend_buffer_type_t fastest_buft(ggml_backend_dev_t dev, ggml_type type, int64_t ne0, int64_t ne1) {
    for (ggml_backend_buffer_type_t buft : extra_bufts(dev)) {
        if (multiplies(dev, type, buft, ne0, ne1)) {
            return buft;
        }
    }
    return ggml_backend_dev_buffer_type(dev);
}

} // namespace lazygguf
