// compute.h: runs segment graphs on the model's devices.
//
// Owns backends and schedulers, and reuses the graphs of small ubatches: a decode step builds nothing as long as its
// shapes stay the same. Knows nothing about tokens or caches.
#pragma once

#include <atomic>
#include <map>
#include <memory>

#include "graph.h"

namespace lazygguf {

struct thread_counts {
    int decode = 1;
    int prefill = 1;
};

class compute {
  public:
    // `cancel` is read while graphs run; it must outlive this object.
    compute(const model & mdl, thread_counts n_threads, const std::atomic<bool> & cancel);

    // The graph of this shape, allocated and ready for its inputs. `generation` names the state of `seg`: a kept
    // graph is reused only while it is the same. The reference is valid until the next call.
    segment_graph & prepare(int segment, const segment_tensors & seg, uint64_t generation, const graph_shape & shape);
    // Runs what prepare() returned last. Fails with CANCELLED or FAILED.
    void run();
    // Drops kept graphs, whose tensors are about to go.
    void forget();

  private:
    // A scheduler and the graph it has allocated.
    struct slot {
        ggml_backend_sched_ptr sched;
        std::unique_ptr<segment_graph> graph;
        int segment = -1;
        uint64_t generation = 0;
    };

    const model & mdl_;
    thread_counts n_threads_;
    std::vector<ggml_backend_ptr> backends_;
    slot large_;                // prefill ubatches: one set of buffers, whatever the segment
    std::map<int, slot> small_; // decode steps, by segment
    slot * current_ = nullptr;

    ggml_backend_sched_ptr new_sched() const;
    void set_n_threads(int n) const;
};

} // namespace lazygguf
