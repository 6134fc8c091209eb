// kernel_speed.cpp: the measurement.

#include "kernels/kernel_speed.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "devices/device_proc.h"
#include "kernels/matmul.h"

namespace lazygguf {
namespace {

// Large enough that the kernel's own speed shows, small enough to take about a millisecond.
constexpr int64_t N_IN = 1024; // a multiple of every block size
constexpr int64_t N_OUT = 256;
constexpr double MIN_SECONDS = 2e-3;
constexpr int MIN_RUNS = 3;

ggml_context_ptr new_context() {
    ggml_init_params params = {ggml_tensor_overhead() * 8 + ggml_graph_overhead(), nullptr, /*no_alloc=*/true};
    return ggml_context_ptr(ggml_init(params));
}

double run_seconds(ggml_backend_t backend, ggml_cgraph * gf) {
    const auto begin = std::chrono::steady_clock::now();
    ggml_backend_graph_compute(backend, gf);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double measure(ggml_backend_dev_t dev, const kernel & k, int64_t n_rows) {
    if (!is_supported(dev, k, N_IN, N_OUT)) {
        return 0.0;
    }
    ggml_backend_ptr backend(ggml_backend_dev_init(dev, nullptr));
    auto set_n_threads = device_proc<ggml_backend_set_n_threads_t>(dev, "ggml_backend_set_n_threads");
    if (backend && set_n_threads != nullptr) {
        set_n_threads(backend.get(), 1);
    }
    ggml_context_ptr weights = new_context();
    ggml_context_ptr rest = new_context();
    ggml_tensor * w = ggml_new_tensor_2d(weights.get(), k.type, N_IN, N_OUT);
    ggml_tensor * x = ggml_new_tensor_2d(rest.get(), GGML_TYPE_F32, N_IN, n_rows);
    ggml_cgraph * gf = ggml_new_graph(rest.get());
    work_queue queue;
    ggml_build_forward_expand(gf, k.is_ours ? build_matmul(rest.get(), w, build_packed_rows(rest.get(), x), queue)
                                            : ggml_mul_mat(rest.get(), w, x));
    ggml_backend_buffer_ptr w_buffer(ggml_backend_alloc_ctx_tensors_from_buft(weights.get(), k.buft));
    ggml_backend_buffer_ptr x_buffer(
        ggml_backend_alloc_ctx_tensors_from_buft(rest.get(), ggml_backend_dev_buffer_type(dev)));
    if (!backend || !w_buffer || !x_buffer) {
        return 0.0;
    }
    const std::vector<char> zeros(ggml_nbytes(w)); // zero bytes are zeros in every type
    ggml_backend_tensor_set(w, zeros.data(), 0, zeros.size());
    ggml_backend_buffer_clear(x_buffer.get(), 0);
    run_seconds(backend.get(), gf); // warm-up
    double best = run_seconds(backend.get(), gf);
    double total = best;
    for (int i = 1; i < MIN_RUNS || total < MIN_SECONDS; ++i) {
        const double seconds = run_seconds(backend.get(), gf);
        best = std::min(best, seconds);
        total += seconds;
    }
    return 2.0 * static_cast<double>(N_IN * N_OUT * n_rows) / best;
}

} // namespace

bool is_supported(ggml_backend_dev_t dev, const kernel & k, int64_t ne0, int64_t ne1) {
    if (k.is_ours) {
        return has_matmul(k.type, ne0, ne1);
    }
    ggml_context_ptr ctx = new_context();
    ggml_tensor * w = ggml_new_tensor_2d(ctx.get(), k.type, ne0, ne1);
    ggml_tensor * op = ggml_mul_mat(ctx.get(), w, ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, ne0, 512));
    // support depends on the buffer's type, so the question is asked with an empty buffer of that type
    ggml_backend_buffer_ptr buffer(ggml_backend_buft_alloc_buffer(k.buft, 0));
    w->buffer = buffer.get();
    const bool ok = ggml_backend_dev_supports_op(dev, op);
    w->buffer = nullptr;
    return ok;
}

double kernel_speed(ggml_backend_dev_t dev, const kernel & k, int64_t n_rows) {
    static std::mutex mutex;
    static std::map<std::tuple<ggml_backend_dev_t, ggml_type, ggml_backend_buffer_type_t, bool, int64_t>, double> known;
    const std::lock_guard<std::mutex> lock(mutex);
    const auto [it, is_new] = known.try_emplace({dev, k.type, k.buft, k.is_ours, n_rows}, 0.0);
    if (is_new) {
        it->second = measure(dev, k, n_rows);
    }
    return it->second;
}

} // namespace lazygguf
