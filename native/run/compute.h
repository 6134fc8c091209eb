// compute.h: runs segment graphs on the model's devices.
//
// Owns backends and schedulers, and reuses the graphs of small ubatches: a decode step builds nothing as long as its
// shapes stay the same. Sees to it that no device gets a node it has no kernel for, and counts what crosses between
// host and devices. Knows nothing about tokens or caches.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <string>

#include "graph/segment_graph.h"

namespace lazygguf {

struct thread_counts {
    int decode = 1;
    int prefill = 1;
};

// Bytes between host memory and the memory of devices. What goes from one device to another counts in both.
struct traffic {
    uint64_t to_devices = 0;
    uint64_t to_host = 0;
};

class compute {
  public:
    // `cancel` is read while graphs run; it must outlive this object.
    compute(const model & mdl, thread_counts n_threads, const std::atomic<bool> & cancel);
    ~compute();
    compute(const compute &) = delete;
    compute & operator=(const compute &) = delete;

    // The graph of this shape, allocated and ready for its inputs. `generation` names the state of `seg`: a kept
    // graph is reused only while it is the same. The reference is valid until the next call.
    segment_graph & prepare(int segment, const segment_tensors & seg, uint64_t generation, const graph_shape & shape);
    // Runs what prepare() returned last. Fails with CANCELLED or FAILED.
    void run();
    // Copies an output of the last run to `out`, which has room for it.
    void read(const ggml_tensor * output, float * out);
    // Drops kept graphs, whose tensors are about to go.
    void forget();

    // Since the last reset.
    const traffic & moved() const { return moved_; }
    void reset_moved() { moved_ = {}; }

    // Nodes of this graph that will run on the CPU since their device has no kernel, one line for each kind.
    std::vector<std::string> lacking(const segment_tensors & seg, const graph_shape & shape) const;

  private:
    // A scheduler and the graph it has allocated.
    struct slot {
        ggml_backend_sched_ptr sched;
        std::unique_ptr<segment_graph> graph;
        int segment = -1;
        uint64_t generation = 0;
        uint64_t n_freed = 0; // rpc_buffers_freed() when the graph was allocated
        traffic per_run;
    };

    const model & mdl_;
    thread_counts n_threads_;
    std::vector<ggml_backend_ptr> backends_;
    slot large_;                // prefill ubatches: one set of buffers, whatever the segment
    std::map<int, slot> small_; // decode steps, by segment
    slot * current_ = nullptr;
    traffic moved_;

    ggml_backend_t backend_of(ggml_backend_dev_t dev) const;
    void place(const slot & s) const;
    void allocate(slot & s, const segment_tensors & seg) const;
    size_t buffer_bytes(const slot & s) const;
    std::string need_of(slot & s, const segment_tensors & seg) const;
    ggml_backend_sched_ptr new_sched() const;
    void set_n_threads(int n) const;
};

} // namespace lazygguf
