// model.cpp: placing and loading of weights.

#include "model.h"

#include <algorithm>
#include <map>

#include "device_proc.h"
#include "error.h"
#include "vocab.h"

namespace lazygguf {
namespace {

// Buffer types with faster kernels than the plain one (CPU_REPACK, AMX, KleidiAI), best first.
std::vector<ggml_backend_buffer_type_t> extra_bufts(ggml_backend_dev_t dev) {
    std::vector<ggml_backend_buffer_type_t> bufts;
    auto get = device_proc<ggml_backend_dev_get_extra_bufts_t>(dev, "ggml_backend_dev_get_extra_bufts");
    for (ggml_backend_buffer_type_t * b = get ? get(dev) : nullptr; b && *b; ++b) {
        bufts.push_back(*b);
    }
    return bufts;
}

ggml_backend_buffer_type_t choose_buft(ggml_backend_dev_t dev, const tensor_spec & spec, ggml_type type) {
    if (spec.use == tensor_use::matmul) {
        for (ggml_backend_buffer_type_t buft : extra_bufts(dev)) {
            if (is_supported(dev, {type, buft}, spec.ne0, spec.ne1)) {
                return buft;
            }
        }
    }
    return ggml_backend_dev_buffer_type(dev);
}

ggml_backend_dev_t find_gpu() {
    for (const auto type : {GGML_BACKEND_DEVICE_TYPE_GPU, GGML_BACKEND_DEVICE_TYPE_IGPU}) {
        if (ggml_backend_dev_t dev = ggml_backend_dev_by_type(type)) {
            return dev;
        }
    }
    return nullptr;
}

} // namespace

model::model(const std::string & path, const model_params & params) {
    const gguf_file file(path);
    hp = read_hparams(file);
    check_tensors(file, hp);
    if (file.has("tokenizer.ggml.model")) { // a file without tokenizer still evaluates token ids
        check_vocab(file, hp.n_vocab);
    }
    weights_ = params.weights;
    place_layers(params.n_gpu_layers);
    load_weights(file, params);
}

model::~model() = default;

void model::place_layers(int n_gpu_layers) {
    cpu_dev = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (cpu_dev == nullptr) {
        fail(LAZY_STATUS_FAILED, "ggml has no CPU device; reinstall llama-cpp-python");
    }
    ggml_backend_dev_t gpu = n_gpu_layers == 0 ? nullptr : find_gpu();
    if (n_gpu_layers != 0 && gpu == nullptr) {
        fail(LAZY_STATUS_INVALID_ARGUMENT,
             format("n_gpu_layers is %d, but ggml has no GPU device: llama-cpp-python was built for the CPU only; "
                    "use n_gpu_layers=0",
                    n_gpu_layers));
    }
    const int n_gpu = n_gpu_layers < 0 ? hp.n_layer + 1 : std::min(n_gpu_layers, hp.n_layer + 1);
    // as llama.cpp counts: the output layer is the last one of n_layer + 1
    output_dev = n_gpu > 0 ? gpu : cpu_dev;
    for (int il = 0; il < hp.n_layer; ++il) {
        layer_devs.push_back(il >= hp.n_layer + 1 - n_gpu ? gpu : cpu_dev);
    }
}

std::vector<ggml_backend_dev_t> model::devices() const {
    std::vector<ggml_backend_dev_t> devs;
    if (output_dev != cpu_dev) {
        devs.push_back(output_dev);
    }
    devs.push_back(cpu_dev);
    return devs;
}

namespace {

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
    load_plan(const gguf_file & file, size_t n_max) : file_(file), n_max_(n_max) {}

    ggml_tensor * add(const tensor_spec & spec, const char * stored_as, ggml_backend_dev_t dev) {
        const int64_t i = gguf_find_tensor(file_.gguf(), stored_as);
        if (i < 0) {
            return nullptr;
        }
        const ggml_type type = gguf_get_tensor_type(file_.gguf(), i);
        ggml_backend_buffer_type_t buft = choose_buft(dev, spec, type);
        ggml_context * ctx = context(buft);
        ggml_tensor * t =
            spec.ne1 == 1 ? ggml_new_tensor_1d(ctx, type, spec.ne0) : ggml_new_tensor_2d(ctx, type, spec.ne0, spec.ne1);
        ggml_set_name(t, spec.name.c_str());
        tensors.push_back({spec, t, buft, file_.tensor_offset(i)});
        return t;
    }

    std::vector<planned_tensor> tensors;
    std::map<ggml_backend_buffer_type_t, ggml_context_ptr> ctxs;

  private:
    const gguf_file & file_;
    size_t n_max_;

    ggml_context * context(ggml_backend_buffer_type_t buft) {
        ggml_context_ptr & ctx = ctxs[buft];
        if (!ctx) {
            ggml_init_params params = {ggml_tensor_overhead() * n_max_, nullptr, /*no_alloc=*/true};
            ctx.reset(ggml_init(params));
        }
        return ctx.get();
    }
};

void bind_layer_tensor(layer_weights & layer, const std::string & name, ggml_tensor * t) {
    static const std::map<std::string, ggml_tensor * layer_weights::*> members = {
        {"attn_norm.weight", &layer_weights::attn_norm},
        {"attn_q.weight", &layer_weights::wq},
        {"attn_k.weight", &layer_weights::wk},
        {"attn_v.weight", &layer_weights::wv},
        {"attn_output.weight", &layer_weights::wo},
        {"attn_q.bias", &layer_weights::bq},
        {"attn_k.bias", &layer_weights::bk},
        {"attn_v.bias", &layer_weights::bv},
        {"attn_output.bias", &layer_weights::bo},
        {"ffn_norm.weight", &layer_weights::ffn_norm},
        {"ffn_gate.weight", &layer_weights::ffn_gate},
        {"ffn_up.weight", &layer_weights::ffn_up},
        {"ffn_down.weight", &layer_weights::ffn_down},
    };
    layer.*members.at(name.substr(name.find('.', 4) + 1)) = t; // "blk.12.attn_q.weight"
}

void allocate(ggml_backend_buffer_type_t buft, ggml_context * ctx, std::vector<ggml_backend_buffer_ptr> & buffers) {
    const size_t n_bytes = ggml_backend_alloc_ctx_tensors_from_buft_size(ctx, buft);
    ggml_backend_buffer_ptr buffer(ggml_backend_alloc_ctx_tensors_from_buft(ctx, buft));
    if (!buffer) {
        fail(LAZY_STATUS_NO_MEMORY,
             format("cannot allocate %zu bytes of %s memory for the weights", n_bytes, ggml_backend_buft_name(buft)));
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
    std::string text = format("%s, %d layers, %d/%d heads of %d", hp.arch.c_str(), hp.n_layer, hp.n_head, hp.n_head_kv,
                              hp.n_embd_head);
    for (const auto & [name, n] : bytes) {
        text += format(", %s %.1f MiB", name.c_str(), static_cast<double>(n) / (1024.0 * 1024.0));
    }
    return text;
}

} // namespace

void model::load_weights(const gguf_file & file, const model_params & params) {
    const std::vector<tensor_spec> specs = list_tensors(hp);
    load_plan plan(file, specs.size() + 1);
    std::vector<layer_weights> & layers = layers_.front();
    layers.resize(static_cast<size_t>(hp.n_layer));
    ggml_backend_buffer_type_t plain = ggml_backend_dev_buffer_type(cpu_dev);
    ggml_tensor * rope_freqs = nullptr;
    for (const tensor_spec & spec : specs) {
        const bool is_output = spec.name.compare(0, 6, "output") == 0;
        ggml_backend_dev_t dev = spec.il >= 0 ? layer_devs[static_cast<size_t>(spec.il)]
                                 : is_output  ? output_dev
                                              : cpu_dev;
        ggml_tensor * t = plan.add(spec, spec.name.c_str(), dev);
        if (spec.il >= 0) {
            bind_layer_tensor(layers[static_cast<size_t>(spec.il)], spec.name, t);
        } else if (spec.name == "token_embd.weight") {
            tok_embd = t;
        } else if (spec.name == "rope_freqs.weight") {
            rope_freqs = t;
        } else if (spec.name == "output_norm.weight") {
            output_norm = t;
        } else if (t != nullptr) {
            output = t;
        } else { // tied embeddings: the same bytes once more, but only where another buffer type multiplies faster
            const bool same = dev == cpu_dev && choose_buft(dev, spec, tok_embd->type) == plain;
            output = same ? tok_embd : plan.add(spec, "token_embd.weight", dev);
        }
    }
    for (layer_weights & layer : layers) {
        layer.rope_freqs = rope_freqs;
    }
    large_ = std::make_unique<large_weights>(cpu_dev, params.weights);
    layers_.fill(layers);
    for (const planned_tensor & p : plan.tensors) {
        const bool on_cpu = p.spec.il >= 0 && layer_devs[static_cast<size_t>(p.spec.il)] == cpu_dev;
        const bool is_read = params.n_layer == 0 || p.spec.il < params.n_layer;
        if (on_cpu && is_read && p.spec.use == tensor_use::matmul) {
            large_->add(p.tensor, p.buft, p.offset);
            for (size_t i = 0; i < std::size(large_weights::LEVELS); ++i) {
                bind_layer_tensor(layers_[i + 1][static_cast<size_t>(p.spec.il)], p.spec.name,
                                  large_->at(p.tensor, large_weights::LEVELS[i]));
            }
        }
    }

    map_ = std::make_unique<mapped_file>(file.path(), file.size());
    const bool aligned = gguf_get_alignment(file.gguf()) % ggml_backend_buft_get_alignment(plain) == 0;
    const bool map_plain = params.use_mmap && aligned;
    for (auto & [buft, ctx] : plan.ctxs) {
        if (buft == plain && map_plain) {
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
        if (!map_plain || !large_->maps(p.tensor)) {
            map_->drop(p.offset, n_bytes);
        }
    }
    large_->load(*map_, map_plain);
    desc = describe(hp, plan);
    if (const std::string forms = large_->describe(); !forms.empty()) {
        desc += "; for prompts: " + forms;
    }
    if (!map_plain) {
        map_.reset();
    }
}

} // namespace lazygguf
