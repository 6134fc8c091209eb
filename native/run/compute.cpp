// compute.cpp: backends, schedulers, graph reuse.

#include "run/compute.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <unordered_set>

#include "base/error.h"
#include "devices/context.h"
#include "devices/device_proc.h"

namespace lazygguf {
namespace {

constexpr int SMALL_ROWS = 8;        // up to this many rows a graph gets its own scheduler and is kept
constexpr size_t KEPT_STEPS = 8;     // decode steps of several segments that are kept; they differ in what comes back
constexpr size_t SCHED_GRAIN = 1024; // a scheduler's room is a multiple of this, so that it fits other graphs too

// Of address space that a scheduler takes for each tensor: ggml keeps 60 descriptions for a split of the graph (30
// inputs, twice), and its tables, with room to spare.
constexpr size_t SCHED_BYTES = 60 * sizeof(ggml_tensor) + 2048;

bool is_cancelled(void * cancel) {
    return static_cast<const std::atomic<bool> *>(cancel)->load(std::memory_order_relaxed);
}

bool is_host(const ggml_tensor * t) { return t->buffer == nullptr || ggml_backend_buffer_is_host(t->buffer); }

// What a node of a graph reads. The scheduler puts a copy in its place where it lies on another device.
struct edge {
    const ggml_tensor * node;
    int i; // of node->src
    const ggml_tensor * src;
};

std::vector<edge> edges_of(ggml_cgraph * gf) {
    std::vector<edge> edges;
    for (int n = 0; n < ggml_graph_n_nodes(gf); ++n) {
        const ggml_tensor * node = ggml_graph_node(gf, n);
        for (int i = 0; i < GGML_MAX_SRC && node->src[i] != nullptr; ++i) {
            edges.push_back({node, i, node->src[i]});
        }
    }
    return edges;
}

// Nodes and what they read, each once.
size_t count_tensors(ggml_cgraph * gf) {
    std::unordered_set<const ggml_tensor *> seen;
    for (int n = 0; n < ggml_graph_n_nodes(gf); ++n) {
        const ggml_tensor * node = ggml_graph_node(gf, n);
        seen.insert(node);
        seen.insert(node->view_src);
        seen.insert(std::begin(node->src), std::end(node->src));
    }
    return seen.size();
}

// What one run moves, from the edges of the graph before it was allocated: each copy once, whoever reads it.
traffic crossing(const std::vector<edge> & edges) {
    traffic t;
    std::set<const ggml_tensor *> seen;
    for (const edge & e : edges) {
        const ggml_tensor * copy = e.node->src[e.i];
        if (copy != e.src && seen.insert(copy).second) {
            t.to_host += is_host(e.src) ? 0 : ggml_nbytes(e.src);
            t.to_devices += is_host(copy) ? 0 : ggml_nbytes(copy);
        }
    }
    return t;
}

} // namespace

compute::compute(const model & mdl, thread_counts n_threads, const std::atomic<bool> & cancel)
    : mdl_(mdl), n_threads_(n_threads) {
    for (ggml_backend_dev_t dev : mdl.devices()) {
        ggml_backend_ptr backend(ggml_backend_dev_init(dev, nullptr));
        if (!backend) {
            fail(status::failed, format("device %s cannot be started", ggml_backend_dev_name(dev)));
        }
        auto set_abort = device_proc<ggml_backend_set_abort_callback_t>(dev, "ggml_backend_set_abort_callback");
        if (set_abort != nullptr) { // devices without one are cancelled between ubatches
            set_abort(backend.get(), is_cancelled, const_cast<std::atomic<bool> *>(&cancel));
        }
        backends_.push_back(std::move(backend));
    }
}

compute::~compute() {
    if (!mdl_.links.empty()) {
        note_rpc_buffer_freed(); // those of the schedulers
    }
}

// Gives the slot a scheduler with room for its graph.
void compute::make_room(slot & s) const {
    const size_t n_tensors = 3 * count_tensors(s.graph->gf()) / 2; // it looks them up in a table that must not be full
    if (s.sched && n_tensors <= s.n_sched) {
        ggml_backend_sched_reset(s.sched.get());
        return;
    }
    std::vector<ggml_backend_t> backends;
    std::vector<ggml_backend_buffer_type_t> bufts;
    for (const ggml_backend_ptr & backend : backends_) {
        backends.push_back(backend.get());
        bufts.push_back(ggml_backend_get_default_buffer_type(backend.get()));
    }
    if (s.sched && !mdl_.links.empty()) {
        note_rpc_buffer_freed();
    }
    s.n_sched = (n_tensors + SCHED_GRAIN - 1) / SCHED_GRAIN * SCHED_GRAIN;
    s.sched.reset();
    check_room(s.n_sched * SCHED_BYTES, "a scheduler");
    s.sched.reset(ggml_backend_sched_new(backends.data(), bufts.data(), static_cast<int>(backends.size()), s.n_sched,
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

ggml_backend_t compute::backend_of(ggml_backend_dev_t dev) const {
    for (const ggml_backend_ptr & backend : backends_) {
        if (ggml_backend_get_device(backend.get()) == dev) {
            return backend.get();
        }
    }
    return backends_.back().get();
}

// Tells the scheduler where each node runs. Left alone it would run the nodes without weights where their neighbours
// are, and copy whole caches there.
void compute::place(const slot & s) const {
    if (backends_.size() == 1) {
        return;
    }
    for (const placed_node & p : s.graph->placed()) {
        ggml_backend_t backend = backend_of(p.dev);
        const bool ok = ggml_backend_supports_op(backend, p.node);
        ggml_backend_sched_set_tensor_backend(s.sched.get(), p.node, ok ? backend : backends_.back().get());
    }
}

std::vector<std::string> compute::lacking(const segment_tensors & seg, const graph_shape & shape) const {
    const step_graph graph(mdl_, {{seg, shape}});
    std::set<std::string> lines;
    for (const placed_node & p : graph.placed()) {
        if (p.dev != mdl_.cpu_dev && !ggml_backend_dev_supports_op(p.dev, p.node)) {
            lines.insert(format("%s runs on the CPU: %s has no kernel for it", ggml_op_desc(p.node),
                                ggml_backend_dev_name(p.dev)));
        }
    }
    return {lines.begin(), lines.end()};
}

size_t compute::buffer_bytes(const slot & s) const {
    size_t n = 0;
    for (const ggml_backend_ptr & backend : backends_) {
        n += ggml_backend_sched_get_buffer_size(s.sched.get(), backend.get());
    }
    return n;
}

bool compute::holds(const slot & s, int first, const std::vector<graph_part> & parts, uint64_t generation) const {
    return s.graph && s.first == first && s.generation == generation && s.graph->computes(parts) &&
           s.n_freed == rpc_buffers_freed();
}

// The slot that has this graph, or the one that is to get it.
compute::slot & compute::slot_of(int first, const std::vector<graph_part> & parts, uint64_t generation) {
    if (most_rows(parts) > SMALL_ROWS) {
        return large_;
    }
    if (parts.size() == 1) {
        return small_[first];
    }
    auto found =
        std::find_if(steps_.begin(), steps_.end(), [&](const slot & s) { return holds(s, first, parts, generation); });
    if (found == steps_.end() && steps_.size() < KEPT_STEPS) {
        found = steps_.emplace(steps_.end());
    } else if (found == steps_.end()) {
        --found;
    }
    steps_.splice(steps_.begin(), steps_, found);
    return steps_.front();
}

const step_graph & compute::prepare(int first, const std::vector<graph_part> & parts, uint64_t generation) {
    slot & s = slot_of(first, parts, generation);
    current_ = &s;
    if (!holds(s, first, parts, generation)) {
        s.graph = std::make_unique<step_graph>(mdl_, parts);
        s.first = first;
        s.generation = generation;
        try {
            make_room(s);
            allocate(s, parts);
        } catch (...) { // nothing was allocated for it
            s.graph.reset();
            throw;
        }
    }
    return *s.graph;
}

void compute::allocate(slot & s, const std::vector<graph_part> & parts) const {
    const size_t n_before = buffer_bytes(s);
    const bool can_cross = backends_.size() > 1;
    const std::vector<edge> edges = can_cross ? edges_of(s.graph->gf()) : std::vector<edge>();
    place(s);
    if (!ggml_backend_sched_alloc_graph(s.sched.get(), s.graph->gf())) {
        const std::string need = need_of(s, parts);
        s.graph.reset();
        s.sched.reset(); // its state after a failed allocation is undefined
        fail(status::no_memory, need);
    }
    s.per_run = crossing(edges);
    if (!mdl_.links.empty() && buffer_bytes(s) != n_before) {
        note_rpc_buffer_freed();
    }
    s.n_freed = rpc_buffers_freed();
}

// Why there is no room for the slot's graph, with the bytes that each device was to give.
std::string compute::need_of(slot & s, const std::vector<graph_part> & parts) const {
    // the scheduler has split the failed graph, so it is built anew
    s.graph = std::make_unique<step_graph>(mdl_, parts);
    s.sched.reset();
    make_room(s);
    place(s);
    std::vector<size_t> sizes(backends_.size());
    ggml_backend_sched_reserve_size(s.sched.get(), s.graph->gf(), sizes.data());
    std::string text;
    for (size_t i = 0; i < sizes.size(); ++i) {
        text += format("%s%zu bytes on %s", i == 0 ? "" : " and ", sizes[i], ggml_backend_name(backends_[i].get()));
    }
    int n_kv = 0;
    for (const graph_part & part : parts) {
        n_kv = std::max(n_kv, part.shape.n_kv);
    }
    return format("cannot allocate the compute buffers of %d rows over %d K/V rows, %s; a smaller n_ubatch or n_ctx "
                  "needs less",
                  most_rows(parts), n_kv, text.c_str());
}

void compute::run(const std::vector<ggml_tensor *> & wanted) {
    mdl_.links.check();
    const step_graph & graph = *current_->graph;
    const bool is_decode = graph.n_parts() > 1 || graph.n_rows() == 1;
    set_n_threads(is_decode ? n_threads_.decode : n_threads_.prefill);
    fetched_.clear();
    ggml_backend_sched_t sched = current_->sched.get();
    const ggml_status code = ggml_backend_sched_graph_compute_async(sched, graph.gf());
    for (const ggml_tensor * t : wanted) {
        if (code == GGML_STATUS_SUCCESS && !is_host(t)) {
            std::vector<float> & out = fetched_[t];
            out.resize(static_cast<size_t>(ggml_nelements(t)));
            ggml_backend_tensor_get_async(ggml_backend_sched_get_tensor_backend(sched, const_cast<ggml_tensor *>(t)), t,
                                          out.data(), 0, ggml_nbytes(t));
        }
    }
    ggml_backend_sched_synchronize(sched);
    ++work_.n_submissions;
    ++work_.n_waits;
    if (code == GGML_STATUS_ABORTED) {
        fail(status::cancelled, "cancelled");
    }
    if (code != GGML_STATUS_SUCCESS) {
        fail(status::failed, format("the backend failed with status %d (%s)", code, ggml_status_to_string(code)));
    }
    work_.moved.to_devices += current_->per_run.to_devices;
    work_.moved.to_host += current_->per_run.to_host;
}

void compute::read(const ggml_tensor * output, float * out) {
    const size_t n_bytes = ggml_nbytes(output);
    const auto fetched = fetched_.find(output);
    if (fetched != fetched_.end()) {
        std::copy(fetched->second.begin(), fetched->second.end(), out);
    } else {
        ggml_backend_tensor_get(output, out, 0, n_bytes);
        work_.n_waits += is_host(output) ? 0 : 1;
    }
    work_.moved.to_host += is_host(output) ? 0 : n_bytes;
}

void compute::forget() {
    large_.graph.reset();
    for (auto & [segment, s] : small_) {
        s.graph.reset();
    }
    for (slot & s : steps_) {
        s.graph.reset();
    }
}

} // namespace lazygguf
