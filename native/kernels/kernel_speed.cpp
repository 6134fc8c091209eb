// kernel_speed.cpp: the measurement.

#include "kernels/kernel_speed.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include <ggml-cpp.h>

#include "devices/buffer_types.h"
#include "devices/context.h"
#include "devices/device_proc.h"
#include "devices/devices.h"
#include "kernels/matmul.h"

namespace lazygguf {
namespace {

constexpr double MIN_SECONDS = 0.1;
constexpr int MIN_RUNS = 5;

context_ptr new_context() { return make_context(ggml_tensor_overhead() * 8 + ggml_graph_overhead()); }

// The same noise each time, about -1 to 1.
std::vector<float> noise(int64_t n) {
    std::vector<float> x(static_cast<size_t>(n));
    uint32_t state = 1;
    for (float & value : x) {
        state = state * 1664525U + 1013904223U;
        value = static_cast<float>(state >> 8) / 8388608.0F - 1.0F;
    }
    return x;
}

// The matrix as a file would have it.
std::vector<char> quantized(const kernel_case & c) {
    std::vector<char> bytes(ggml_row_size(c.type, c.n_in) * static_cast<size_t>(c.n_out));
    const std::vector<float> values = noise(c.n_in * c.n_out);
    const std::vector<float> weights(static_cast<size_t>(c.n_in), 1.0F); // some types want to know what matters
    ggml_quantize_chunk(c.type, values.data(), bytes.data(), 0, c.n_out, c.n_in, weights.data());
    return bytes;
}

double run_seconds(ggml_backend_t backend, ggml_cgraph * gf) {
    const auto begin = std::chrono::steady_clock::now();
    ggml_backend_graph_compute(backend, gf);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

} // namespace

double kernel_seconds(const kernel_case & wanted) {
    ggml_backend_dev_t dev = cpu_device();
    ggml_backend_buffer_type_t buft = fastest_buft(dev, wanted.type, wanted.n_in, wanted.n_out);
    if (wanted.is_ours ? !has_matmul(wanted.type, wanted.n_in, wanted.n_out)
                       : !multiplies(dev, wanted.type, buft, wanted.n_in, wanted.n_out)) {
        return 0.0;
    }
    ggml_backend_ptr backend(ggml_backend_dev_init(dev, nullptr));
    device_proc<ggml_backend_set_n_threads_t>(dev, "ggml_backend_set_n_threads")(backend.get(), wanted.n_threads);
    context_ptr weights = new_context();
    context_ptr rest = new_context();
    const std::vector<char> rows = quantized(wanted);
    ggml_tensor * w = nullptr;
    ggml_tensor * x = ggml_new_tensor_2d(rest.get(), GGML_TYPE_F32, wanted.n_in, wanted.n_rows);
    ggml_tensor * out = nullptr;
    matmul_op op(wanted.type, wanted.n_in, wanted.n_out);
    if (wanted.is_ours) {
        buft = ggml_backend_dev_buffer_type(dev);
        const size_t n_bytes = packed_matrix_size(wanted.type, wanted.n_in, wanted.n_out);
        w = ggml_new_tensor_1d(weights.get(), GGML_TYPE_I8, static_cast<int64_t>(n_bytes));
        out = build_matmul(rest.get(), w, build_packed_rows(rest.get(), x, takes_floats(wanted.type)), op);
    } else {
        w = ggml_new_tensor_2d(weights.get(), wanted.type, wanted.n_in, wanted.n_out);
        out = ggml_mul_mat(rest.get(), w, x);
    }
    ggml_cgraph * gf = ggml_new_graph(rest.get());
    ggml_build_forward_expand(gf, out);
    ggml_backend_buffer_ptr w_buffer(ggml_backend_alloc_ctx_tensors_from_buft(weights.get(), buft));
    ggml_backend_buffer_ptr x_buffer(
        ggml_backend_alloc_ctx_tensors_from_buft(rest.get(), ggml_backend_dev_buffer_type(dev)));
    if (!w_buffer || !x_buffer) {
        return 0.0;
    }
    if (wanted.is_ours) {
        pack_matrix(wanted.type, wanted.n_in, wanted.n_out, rows.data(), static_cast<char *>(w->data), 0, 1);
    } else {
        ggml_backend_tensor_set(w, rows.data(), 0, rows.size());
    }
    const std::vector<float> values = noise(wanted.n_in * wanted.n_rows);
    ggml_backend_tensor_set(x, values.data(), 0, ggml_nbytes(x));
    run_seconds(backend.get(), gf); // warm-up
    double best = run_seconds(backend.get(), gf);
    double total = best;
    for (int i = 1; i < MIN_RUNS || total < MIN_SECONDS; ++i) {
        const double seconds = run_seconds(backend.get(), gf);
        best = std::min(best, seconds);
        total += seconds;
    }
    return best;
}

} // namespace lazygguf
