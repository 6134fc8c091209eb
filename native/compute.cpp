// compute.cpp: backends, schedulers, graph reuse.

#include "compute.h"

#include "device_proc.h"
#include "error.h"

namespace lazygguf {
namespace {

constexpr int SMALL_ROWS = 8; // up to this many rows a graph gets its own scheduler and is kept
constexpr size_t SCHED_NODES = 8192;

bool is_cancelled(void * cancel) {
    return static_cast<const std::atomic<bool> *>(cancel)->load(std::memory_order_relaxed);
}

} // namespace

compute::compute(const model & mdl, thread_counts n_threads, const std::atomic<bool> & cancel)
    : mdl_(mdl), n_threads_(n_threads) {
    for (ggml_backend_dev_t dev : mdl.devices()) {
        ggml_backend_ptr backend(ggml_backend_dev_init(dev, nullptr));
        if (!backend) {
            fail(LAZY_STATUS_FAILED, format("device %s cannot be started", ggml_backend_dev_name(dev)));
        }
        auto set_abort = device_proc<ggml_backend_set_abort_callback_t>(dev, "ggml_backend_set_abort_callback");
        if (set_abort != nullptr) { // devices without one are cancelled between ubatches
            set_abort(backend.get(), is_cancelled, const_cast<std::atomic<bool> *>(&cancel));
        }
        backends_.push_back(std::move(backend));
    }
}

ggml_backend_sched_ptr compute::new_sched() const {
    std::vector<ggml_backend_t> backends;
    std::vector<ggml_backend_buffer_type_t> bufts;
    for (const ggml_backend_ptr & backend : backends_) {
        backends.push_back(backend.get());
        bufts.push_back(ggml_backend_get_default_buffer_type(backend.get()));
    }
    return ggml_backend_sched_ptr(ggml_backend_sched_new(backends.data(), bufts.data(),
                                                         static_cast<int>(backends.size()), SCHED_NODES,
                                                         /*parallel=*/false, /*op_offload=*/false));
}

void compute::set_n_threads(int n) const {
    for (const ggml_backend_ptr & backend : backends_) {
        auto set = device_proc<ggml_backend_set_n_threads_t>(ggml_backend_get_device(backend.get()),
                                                             "ggml_backend_set_n_threads");
        if (set != nullptr) {
            set(backend.get(), n);
        }
    }
}

segment_graph & compute::prepare(int segment, const segment_tensors & seg, uint64_t generation,
                                 const graph_shape & shape) {
    slot & s = shape.n_rows <= SMALL_ROWS ? small_[segment] : large_;
    current_ = &s;
    const bool same = s.graph && s.segment == segment && s.generation == generation && s.graph->shape() == shape;
    if (same) {
        return *s.graph;
    }
    if (!s.sched) {
        s.sched = new_sched();
    }
    ggml_backend_sched_reset(s.sched.get());
    s.graph = std::make_unique<segment_graph>(mdl_, seg, shape);
    s.segment = segment;
    s.generation = generation;
    if (!ggml_backend_sched_alloc_graph(s.sched.get(), s.graph->gf())) {
        s.graph.reset();
        fail(LAZY_STATUS_NO_MEMORY, format("cannot allocate the compute buffers of %d rows over %d K/V rows; "
                                           "a smaller n_ubatch or n_ctx needs less",
                                           shape.n_rows, shape.n_kv));
    }
    return *s.graph;
}

void compute::run() {
    set_n_threads(current_->graph->shape().n_rows == 1 ? n_threads_.decode : n_threads_.prefill);
    const ggml_status status = ggml_backend_sched_graph_compute(current_->sched.get(), current_->graph->gf());
    if (status == GGML_STATUS_ABORTED) {
        fail(LAZY_STATUS_CANCELLED, "cancelled");
    }
    if (status != GGML_STATUS_SUCCESS) {
        fail(LAZY_STATUS_FAILED,
             format("the backend failed with status %d (%s)", status, ggml_status_to_string(status)));
    }
}

void compute::forget() {
    large_.graph.reset();
    for (auto & [segment, s] : small_) {
        s.graph.reset();
    }
}

} // namespace lazygguf
