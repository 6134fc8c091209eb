// matmul_op.h: what a node that multiplies carries with it. Lives as long as its graph.
#pragma once

#include <atomic>

#include <ggml.h>

namespace lazygguf {

// Hands the parts of an op to the threads that run it, whoever is free. Reusable once every thread has left.
class work_queue {
  public:
    int take() { return next_.fetch_add(1, std::memory_order_relaxed); }
    void leave(int n_threads) {
        if (left_.fetch_add(1, std::memory_order_acq_rel) + 1 == n_threads) {
            next_.store(0, std::memory_order_relaxed);
            left_.store(0, std::memory_order_release);
        }
    }

  private:
    std::atomic<int> next_{0};
    std::atomic<int> left_{0};
};

struct matmul_op {
    ggml_type type = GGML_TYPE_F32; // of the matrix
    int64_t n_in = 0;
    int64_t n_out = 0;
    work_queue queue;

    matmul_op(ggml_type t, int64_t in, int64_t out) : type(t), n_in(in), n_out(out) {}
};

} // namespace lazygguf
