// work_queue.h: hands the parts of an op to the threads that run it, whoever is free.
#pragma once

#include <atomic>

namespace lazygguf {

// Reusable once every thread has left. Always inlined: the linker shares nothing of it between instruction sets.
class work_queue {
  public:
    [[gnu::always_inline]] int take() { return next_.fetch_add(1, std::memory_order_relaxed); }
    [[gnu::always_inline]] void leave(int n_threads) {
        if (left_.fetch_add(1, std::memory_order_acq_rel) + 1 == n_threads) {
            next_.store(0, std::memory_order_relaxed);
            left_.store(0, std::memory_order_release);
        }
    }

  private:
    std::atomic<int> next_{0};
    std::atomic<int> left_{0};
};

} // namespace lazygguf
