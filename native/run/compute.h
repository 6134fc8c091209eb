// compute.h: runs graphs on the model's devices.
//
// Owns backends and schedulers, and reuses the graphs of small ubatches: a decode step builds nothing as long as its
// shapes were seen lately. Sees to it that no device gets a node it has no kernel for, and counts what is submitted,
// waited for, and crosses between host and devices. Knows nothing about tokens or caches.
#pragma once

#include <atomic>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "graph/step_graph.h"

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

// What the devices were asked to do.
struct work_count {
    traffic moved;
    int32_t n_submissions = 0; // graphs given to them
    int32_t n_waits = 0;       // times that the host waited for them
};

class compute {
  public:
    // `cancel` is read while graphs run; it must outlive this object.
    compute(const model & mdl, thread_counts n_threads, const std::atomic<bool> & cancel);
    ~compute();
    compute(const compute &) = delete;
    compute & operator=(const compute &) = delete;

    // The graph of these parts, allocated and ready for its inputs. first: the number of the first part's segment.
    // `generation` names the state of the parts' tensors: a kept graph is reused only while it is the same. The
    // reference is valid until the next call.
    const step_graph & prepare(int first, const std::vector<graph_part> & parts, uint64_t generation);
    // Runs what prepare() returned last. `wanted`: its outputs that come back with the same wait. Fails with CANCELLED
    // or FAILED.
    void run(const std::vector<ggml_tensor *> & wanted = {});
    // Copies an output of the last run to `out`, which has room for it.
    void read(const ggml_tensor * output, float * out);
    // Drops kept graphs, whose tensors are about to go.
    void forget();

    // Since the last reset.
    const work_count & work() const { return work_; }
    void reset_work() { work_ = {}; }

    // Nodes of this graph that will run on the CPU since their device has no kernel, one line for each kind.
    std::vector<std::string> lacking(const segment_tensors & seg, const graph_shape & shape) const;

  private:
    // A scheduler and the graph it has allocated.
    struct slot {
        ggml_backend_sched_ptr sched;
        size_t n_sched = 0; // tensors that the scheduler has room for
        std::unique_ptr<step_graph> graph;
        int first = -1;
        uint64_t generation = 0;
        uint64_t n_freed = 0; // rpc_buffers_freed() when the graph was allocated
        traffic per_run;
    };

    const model & mdl_;
    thread_counts n_threads_;
    std::vector<ggml_backend_ptr> backends_;
    slot large_;                // prefill ubatches: one set of buffers, whatever the segment
    std::map<int, slot> small_; // few rows of one segment, by segment
    std::list<slot> steps_;     // decode steps of several segments, the one used last in front
    slot * current_ = nullptr;
    std::map<const ggml_tensor *, std::vector<float>> fetched_; // outputs of the last run that came back with it
    work_count work_;

    slot & slot_of(int first, const std::vector<graph_part> & parts, uint64_t generation);
    bool holds(const slot & s, int first, const std::vector<graph_part> & parts, uint64_t generation) const;
    ggml_backend_t backend_of(ggml_backend_dev_t dev) const;
    void place(const slot & s) const;
    void allocate(slot & s, const std::vector<graph_part> & parts) const;
    size_t buffer_bytes(const slot & s) const;
    std::string need_of(slot & s, const std::vector<graph_part> & parts) const;
    void make_room(slot & s) const;
    void set_n_threads(int n) const;
};

} // namespace lazygguf
