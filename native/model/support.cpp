// support.cpp: devices are asked with operations on tensors that have no memory.

#include "model/support.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "devices/context.h"

namespace lazygguf {
namespace {

constexpr int64_t N_KV = 512; // K/V rows asked about

class probe {
  public:
    probe(const hparams & hp, ggml_backend_dev_t dev) : hp_(hp), dev_(dev) { ctx_ = make_tensor_context(64); }

    bool writes_rows(ggml_type type, int64_t n_embd) {
        ggml_tensor * op = ggml_set_rows(ctx_.get(), tensor(type, n_embd, N_KV), tensor(GGML_TYPE_F32, n_embd, 1),
                                         tensor(GGML_TYPE_I64, 1, 1));
        return ggml_backend_dev_supports_op(dev_, op);
    }

    bool reads_rows(int64_t n_embd) {
        ggml_tensor * op = ggml_get_rows(ctx_.get(), tensor(GGML_TYPE_F32, n_embd, N_KV), tensor(GGML_TYPE_I32, 1, 1));
        return ggml_backend_dev_supports_op(dev_, op);
    }

    bool attends(cache_types types, int64_t n_rows) {
        ggml_tensor * q = ggml_new_tensor_3d(ctx_.get(), GGML_TYPE_F32, hp_.n_embd_head, n_rows, hp_.n_head);
        ggml_tensor * op = ggml_flash_attn_ext(ctx_.get(), q, heads(types.k), heads(types.v),
                                               tensor(GGML_TYPE_F16, N_KV, n_rows), 1.0F, 0.0F, 0.0F);
        return ggml_backend_dev_supports_op(dev_, op);
    }

  private:
    const hparams & hp_;
    ggml_backend_dev_t dev_;
    context_ptr ctx_;

    ggml_tensor * tensor(ggml_type type, int64_t ne0, int64_t ne1) {
        return ggml_new_tensor_2d(ctx_.get(), type, ne0, ne1);
    }
    ggml_tensor * heads(ggml_type type) { // [n_embd_head, N_KV, n_head_kv], as graphs see a cache tensor
        ggml_tensor * rows = tensor(type, hp_.n_embd_kv(), N_KV);
        ggml_tensor * view = ggml_view_3d(ctx_.get(), rows, hp_.n_embd_head, hp_.n_head_kv, N_KV,
                                          ggml_row_size(type, hp_.n_embd_head), rows->nb[1], 0);
        return ggml_permute(ctx_.get(), view, 0, 2, 1, 3);
    }
};

struct answer {
    bool attends = true;
    bool keeps_aux = true;
};

answer ask(const hparams & hp, ggml_backend_dev_t dev, cache_types types, int n_ubatch) {
    probe p(hp, dev);
    answer a;
    a.attends = p.writes_rows(types.k, hp.n_embd_kv()) && p.writes_rows(types.v, hp.n_embd_kv()) &&
                p.attends(types, 1) && p.attends(types, n_ubatch);
    a.keeps_aux = p.writes_rows(GGML_TYPE_F32, hp.n_embd) && p.reads_rows(hp.n_embd);
    return a;
}

} // namespace

cache_devices place_caches(const model & mdl, cache_types types, int n_ubatch) {
    std::map<ggml_backend_dev_t, answer> answers = {{mdl.cpu_dev, {}}};
    cache_devices placed;
    for (ggml_backend_dev_t dev : mdl.layer_devs) {
        if (answers.count(dev) == 0) {
            const answer a = answers[dev] = ask(mdl.hp, dev, types, n_ubatch);
            if (!a.attends) {
                placed.notes.push_back(format("attention and K/V rows are on the CPU: %s has no kernel for heads of %d "
                                              "with K of %s and V of %s",
                                              ggml_backend_dev_name(dev), mdl.hp.n_embd_head, ggml_type_name(types.k),
                                              ggml_type_name(types.v)));
            }
            if (!a.keeps_aux) {
                placed.notes.push_back(
                    format("aux rows are on the CPU: %s cannot write rows by number", ggml_backend_dev_name(dev)));
            }
        }
        placed.kv.push_back(answers[dev].attends ? dev : mdl.cpu_dev);
        placed.aux.push_back(answers[dev].keeps_aux ? dev : mdl.cpu_dev);
    }
    return placed;
}

std::string lacking_kernels(const gguf_file & file, const std::string & device) {
    device_request request;
    request.n_gpu_layers = -1;
    request.names = {device};
    ggml_backend_dev_t dev = find_devices(request).front();
    const hparams hp = read_hparams(file);
    std::map<std::string, int> kinds;
    model_weights unused;
    for (const tensor_spec & spec : list_tensors(hp, unused)) {
        const int64_t i = gguf_find_tensor(file.gguf(), spec.name.c_str());
        if (i >= 0 && !has_kernel(dev, spec, gguf_get_tensor_type(file.gguf(), i))) {
            const char * type = ggml_type_name(gguf_get_tensor_type(file.gguf(), i));
            ++kinds[format("%s%s", type, spec.use == tensor_use::rows ? " embeddings" : "")];
        }
    }
    std::string text;
    for (const auto & [kind, n] : kinds) {
        text += format("%s (%d tensors)\n", kind.c_str(), n);
    }
    const answer a = ask(hp, dev, {}, session_memory().n_ubatch);
    return text + (a.attends ? "" : format("attention over heads of %d\n", hp.n_embd_head)) +
           (a.keeps_aux ? "" : "aux rows\n");
}

} // namespace lazygguf
