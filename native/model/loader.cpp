// loader.cpp: which tensor goes into which memory (repacked for fast CPU kernels, mapped from the file, or a GPU's),
// and how it gets there.

#include <algorithm>
#include <cstring>
#include <map>

#include "base/error.h"
#include "devices/buffer_types.h"
#include "devices/context.h"
#include "model/architecture.h"
#include "model/model.h"

namespace lazygguf {
bool has_kernel(ggml_backend_dev_t dev, const tensor_spec & spec, ggml_type type) {
    if (spec.use == tensor_use::matmul) {
        return multiplies(dev, type, ggml_backend_dev_buffer_type(dev), spec.ne0, spec.ne1);
    }
    const context_ptr ctx = make_tensor_context(4);
    ggml_tensor * w = ggml_new_tensor_2d(ctx.get(), type, spec.ne0, spec.ne1);
    ggml_tensor * op = spec.use == tensor_use::rows
                           ? ggml_get_rows(ctx.get(), w, ggml_new_tensor_1d(ctx.get(), GGML_TYPE_I32, 512))
                           : ggml_mul(ctx.get(), ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, spec.ne0, 512), w);
    return ggml_backend_dev_supports_op(dev, op);
}

namespace {

ggml_backend_buffer_type_t choose_buft(ggml_backend_dev_t dev, const tensor_spec & spec, ggml_type type) {
    if (spec.use == tensor_use::matmul) {
        return fastest_buft(dev, type, spec.ne0, spec.ne1);
    }
    return ggml_backend_dev_buffer_type(dev);
}

// One tensor of the model and where its bytes lie in the file.
struct planned_tensor {
    const tensor_spec & spec;
    ggml_tensor * tensor;
    ggml_backend_buffer_type_t buft;
    size_t offset;
};

// Creates the tensors' metadata, one ggml context per buffer type, and remembers what each one needs.
class load_plan {
  public:
    // Layers from n_read on are not read, nor is the output then: their matrices stay as they are.
    load_plan(const gguf_file & file, size_t n_max, packed_matrices & matrices, int n_read, bool reads_output)
        : file_(file), n_max_(n_max), matrices_(matrices), n_read_(n_read), reads_output_(reads_output) {}

    ggml_tensor * add(const tensor_spec & spec, const char * stored_as, ggml_backend_dev_t dev) {
        const int64_t i = gguf_find_tensor(file_.gguf(), stored_as);
        if (i < 0) {
            return nullptr;
        }
        const ggml_type type = gguf_get_tensor_type(file_.gguf(), i);
        const bool is_packed = packs(spec, type, dev);
        ggml_backend_buffer_type_t buft = is_packed ? nullptr : buft_for(spec, type, dev);
        if (dev != cpu_device() && (is_packed || ggml_backend_buft_get_device(buft) != dev)) {
            ++lacking[format("%s has no kernel for %s%s", ggml_backend_dev_name(dev), ggml_type_name(type),
                             spec.use == tensor_use::rows ? " embeddings" : "")];
        }
        ggml_context * ctx = context(buft);
        ggml_tensor * t =
            spec.ne1 == 1 ? ggml_new_tensor_1d(ctx, type, spec.ne0) : ggml_new_tensor_2d(ctx, type, spec.ne0, spec.ne1);
        ggml_set_name(t, spec.name.c_str());
        if (is_packed) {
            matrices_.add(t, file_.tensor_offset(i));
        } else {
            tensors.push_back({spec, t, buft, file_.tensor_offset(i)});
        }
        return t;
    }

    // On `dev`, or on the CPU where it has no kernel. What a layer's rows are multiplied with is repacked for ggml only
    // where its kernels are wanted: those for repacked matrices give other results for one row than for many.
    ggml_backend_buffer_type_t buft_for(const tensor_spec & spec, ggml_type type, ggml_backend_dev_t dev) const {
        ggml_backend_dev_t runs = device_of(spec, type, dev);
        return runs == cpu_device() && spec.il >= 0 && matrices_.mode() == weight_mode::fast
                   ? ggml_backend_dev_buffer_type(runs)
                   : choose_buft(runs, spec, type);
    }

    // Do our kernels multiply with it? Then it needs no memory beside the packed copy's.
    bool packs(const tensor_spec & spec, ggml_type type, ggml_backend_dev_t dev) const {
        const bool is_read = spec.il >= 0 ? spec.il < n_read_ : reads_output_;
        return spec.use == tensor_use::matmul && is_read && device_of(spec, type, dev) == cpu_device() &&
               matrices_.takes(type, spec.ne0, spec.ne1);
    }

    std::vector<planned_tensor> tensors;
    std::map<ggml_backend_buffer_type_t, context_ptr> ctxs;
    std::map<std::string, int> lacking; // why tensors are on the CPU though their layer is not, and how many

  private:
    const gguf_file & file_;
    size_t n_max_;
    packed_matrices & matrices_;
    int n_read_;
    bool reads_output_;

    static ggml_backend_dev_t device_of(const tensor_spec & spec, ggml_type type, ggml_backend_dev_t dev) {
        return dev == cpu_device() || has_kernel(dev, spec, type) ? dev : cpu_device();
    }

    ggml_context * context(ggml_backend_buffer_type_t buft) {
        context_ptr & ctx = ctxs[buft];
        if (!ctx) {
            ctx = make_tensor_context(n_max_);
        }
        return ctx.get();
    }
};

// Once on each device that rotates with them: a graph would copy them there every time.
void add_rope_freqs(load_plan & plan, const tensor_spec & spec, const std::vector<ggml_backend_dev_t> & devs,
                    std::vector<layer_weights> & layers) {
    std::map<ggml_backend_dev_t, ggml_tensor *> by_device;
    for (size_t il = 0; il < layers.size(); ++il) {
        if (by_device.count(devs[il]) == 0) {
            by_device[devs[il]] = plan.add(spec, spec.name.c_str(), devs[il]);
        }
        layers[il].rope_freqs = by_device[devs[il]];
    }
}

// Tied embeddings also serve as output matrix if they are on the right device and as fast there; otherwise they are
// loaded twice.
ggml_tensor * add_output(load_plan & plan, const tensor_spec & spec, const model & mdl) {
    if (ggml_tensor * t = plan.add(spec, spec.name.c_str(), mdl.output_dev)) {
        return t;
    }
    ggml_tensor * embd = mdl.weights.tok_embd;
    const bool same = !plan.packs(spec, embd->type, mdl.output_dev) &&
                      plan.buft_for(spec, embd->type, mdl.output_dev) == plan.tensors.front().buft;
    return same ? embd : plan.add(spec, "token_embd.weight", mdl.output_dev);
}

void allocate(ggml_backend_buffer_type_t buft, ggml_context * ctx, std::vector<ggml_backend_buffer_ptr> & buffers) {
    const size_t n_bytes = ggml_backend_alloc_ctx_tensors_from_buft_size(ctx, buft);
    ggml_backend_buffer_ptr buffer(ggml_backend_alloc_ctx_tensors_from_buft(ctx, buft));
    if (!buffer) {
        fail(status::no_memory,
             format("cannot allocate %zu bytes of %s memory for the weights%s", n_bytes, ggml_backend_buft_name(buft),
                    ggml_backend_buft_is_host(buft) ? "" : "; fewer n_gpu_layers need less there"));
    }
    ggml_backend_buffer_set_usage(buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    buffers.push_back(std::move(buffer));
}

// Lets the tensors of `ctx` point into the mapping. The buffer spans the whole file.
void map_tensors(const load_plan & plan, ggml_backend_buffer_type_t buft, const mapped_file & map,
                 std::vector<ggml_backend_buffer_ptr> & buffers) {
    ggml_backend_buffer_ptr buffer(ggml_backend_cpu_buffer_from_ptr(map.data(), map.size()));
    ggml_backend_buffer_set_usage(buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    for (const planned_tensor & p : plan.tensors) {
        if (p.buft == buft) {
            ggml_backend_tensor_alloc(buffer.get(), p.tensor, map.data() + p.offset);
        }
    }
    buffers.push_back(std::move(buffer));
}

std::string describe(const hparams & hp, const load_plan & plan) {
    std::map<std::string, size_t> bytes;
    for (const planned_tensor & p : plan.tensors) {
        bytes[ggml_backend_buft_name(p.buft)] += ggml_nbytes(p.tensor);
    }
    std::string text =
        format("%s, %d layers, %d/%d heads of %d", hp.arch->name, hp.n_layer, hp.n_head, hp.n_head_kv, hp.n_embd_head);
    for (const auto & [name, n] : bytes) {
        text += format(", %s %.1f MiB", name.c_str(), static_cast<double>(n) / (1024.0 * 1024.0));
    }
    for (const auto & [why, n] : plan.lacking) {
        text += format(", %d tensors on the CPU since %s", n, why.c_str());
    }
    return text;
}

} // namespace

// Says what the model is and what its weights take.
std::string model::load_weights(const gguf_file & file, const model_params & params) {
    const std::vector<tensor_spec> specs = list_tensors(hp, weights);
    ggml_backend_buffer_type_t plain = ggml_backend_dev_buffer_type(cpu_dev);
    matrices_ = std::make_unique<packed_matrices>(mode_);
    const int n_read = params.n_layer == 0 ? hp.n_layer : params.n_layer;
    load_plan plan(file, specs.size() + devices().size(), *matrices_, n_read, n_read == hp.n_layer);
    for (const tensor_spec & spec : specs) {
        if (spec.name == ROPE_FREQS) {
            add_rope_freqs(plan, spec, layer_devs, weights.layers);
        } else if (spec.slot == &weights.output) {
            weights.output = add_output(plan, spec, *this);
        } else {
            ggml_backend_dev_t dev = spec.slot == &weights.tok_embd ? layer_devs.front()
                                     : spec.il < 0                  ? output_dev
                                                                    : layer_devs[static_cast<size_t>(spec.il)];
            *spec.slot = plan.add(spec, spec.name.c_str(), dev);
        }
    }
    map_ = std::make_unique<mapped_file>(file.path(), file.size());
    const bool aligned = gguf_get_alignment(file.gguf()) % ggml_backend_buft_get_alignment(plain) == 0;
    const bool map_plain = params.use_mmap && aligned;
    for (auto & [buft, ctx] : plan.ctxs) {
        if (buft == nullptr) { // packed
        } else if (buft == plain && map_plain) {
            map_tensors(plan, buft, *map_, buffers_);
        } else {
            allocate(buft, ctx.get(), buffers_);
        }
        ctxs_.push_back(std::move(ctx));
    }
    for (const planned_tensor & p : plan.tensors) {
        if (p.buft == plain && map_plain) {
            continue;
        }
        const size_t n_bytes = ggml_nbytes(p.tensor);
        ggml_backend_tensor_set(p.tensor, map_->data() + p.offset, 0, n_bytes);
        map_->drop(p.offset, n_bytes);
    }
    matrices_->load(*map_);
    if (!map_plain) {
        map_.reset();
    }
    const std::string packed = matrices_->describe();
    return describe(hp, plan) + (packed.empty() ? "" : ", " + packed);
}

} // namespace lazygguf
