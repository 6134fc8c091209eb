// capi_params.cpp: the structs of the C interface, checked and as the core takes them.

#include "capi_params.h"

#include <algorithm>
#include <sstream>

#include "error.h"

namespace lazygguf {
namespace {

void check_version(const char * what, int32_t version) {
    if (version != LAZY_VERSION) {
        fail(LAZY_STATUS_INVALID_ARGUMENT, format("%s.version is %d, expected %d", what, version, LAZY_VERSION));
    }
}

void check_weights(lazy_weights weights) {
    const int value = static_cast<int>(weights);
    if (value < LAZY_WEIGHTS_AS_IS || value > LAZY_WEIGHTS_FORCE_MATMUL) {
        fail(LAZY_STATUS_INVALID_ARGUMENT, format("weights is %d, expected a value of lazy_weights", value));
    }
}

void check_at_least(const char * what, int32_t value, int32_t low) {
    if (value < low) {
        fail(LAZY_STATUS_INVALID_ARGUMENT, format("%s is %d, expected at least %d", what, value, low));
    }
}

ggml_type read_dtype(const char * what, lazy_kv_dtype dtype) {
    const auto type = static_cast<ggml_type>(dtype);
    if (type != GGML_TYPE_F16 && type != GGML_TYPE_F32 && type != GGML_TYPE_Q8_0) {
        fail(LAZY_STATUS_INVALID_ARGUMENT,
             format("%s is %d, expected f16, f32 or q8_0", what, static_cast<int>(dtype)));
    }
    return type;
}

// K/V of a quantized type are read head by head, so a head must be whole blocks.
ggml_type read_dtype(const char * what, lazy_kv_dtype dtype, const hparams & hp) {
    const ggml_type type = read_dtype(what, dtype);
    if (hp.n_embd_head % ggml_blck_size(type) != 0) {
        fail(LAZY_STATUS_INVALID_ARGUMENT,
             format("%s is %s, which needs heads of a multiple of %lld, and this model's are %d; use f16", what,
                    ggml_type_name(type), static_cast<long long>(ggml_blck_size(type)), hp.n_embd_head));
    }
    return type;
}

attention_request read_attention(const lazy_attention * in) {
    if (in == nullptr) {
        return {};
    }
    if (in->layers == nullptr || in->n_layers < 1 || in->out == nullptr) {
        fail(LAZY_STATUS_INVALID_ARGUMENT, "attention is wanted of no layer, or nowhere");
    }
    return {std::vector<int>(in->layers, in->layers + in->n_layers), in->by_head, in->by_head || in->by_query, in->out,
            in->n_out};
}

} // namespace

std::vector<std::string> split(const char * text) {
    std::vector<std::string> parts;
    std::istringstream in(text == nullptr ? "" : text);
    for (std::string part; std::getline(in, part, ',');) {
        parts.push_back(part);
    }
    return parts;
}

model_params read_params(const lazy_model_params & in) {
    check_version("lazy_model_params", in.version);
    check_at_least("n_gpu_layers", in.n_gpu_layers, LAZY_GPU_LAYERS_AUTO);
    check_at_least("n_ctx", in.n_ctx, 0);
    check_at_least("n_ubatch", in.n_ubatch, 1);
    check_weights(in.weights);
    check_at_least("n_layer", in.n_layer, 0);
    if (in.placement != LAZY_PLACEMENT_WORK && in.placement != LAZY_PLACEMENT_LAST) {
        fail(LAZY_STATUS_INVALID_ARGUMENT,
             format("placement is %d, expected a value of lazy_placement", static_cast<int>(in.placement)));
    }
    model_params out;
    out.use_mmap = in.use_mmap;
    out.weights = in.weights;
    out.n_layer = in.n_layer;
    out.devices = {in.n_gpu_layers, split(in.devices), split(in.rpc_servers), in.placement == LAZY_PLACEMENT_WORK};
    out.schedule = in.schedule;
    out.memory = {in.n_ctx, in.n_ubatch, read_dtype("type_k", in.type_k), read_dtype("type_v", in.type_v)};
    return out;
}

session_params read_params(const lazy_session_params & in, const hparams & hp) {
    check_version("lazy_session_params", in.version);
    check_at_least("n_ctx", in.n_ctx, 0);
    check_at_least("n_ubatch", in.n_ubatch, 1);
    check_at_least("n_threads", in.n_threads, 1);
    check_at_least("n_threads_batch", in.n_threads_batch, 1);
    check_at_least("n_layer", in.n_layer, 0);
    session_params out;
    out.n_ctx = in.n_ctx;
    out.n_ubatch = in.n_ubatch;
    out.n_threads = {std::min(in.n_threads, 512), std::min(in.n_threads_batch, 512)}; // ggml's own limit
    if (in.n_layer > hp.n_layer) {
        fail(LAZY_STATUS_INVALID_ARGUMENT,
             format("n_layer is %d, expected at most the model's %d", in.n_layer, hp.n_layer));
    }
    out.n_layer = in.n_layer;
    out.types = {read_dtype("type_k", in.type_k, hp), read_dtype("type_v", in.type_v, hp)};
    return out;
}

eval_params read_params(const lazy_eval_params * in) {
    eval_params out;
    if (in == nullptr) {
        return out;
    }
    check_version("lazy_eval_params", in->version);
    check_at_least("n_protect", in->n_protect, 0);
    out.query_begin = in->query_begin;
    out.query_end = in->query_end;
    out.scores = in->scores;
    out.n_scores = in->n_scores;
    out.attention = read_attention(in->attention);
    out.protect.assign(in->protect, in->protect + in->n_protect);
    if (in->progress != nullptr) {
        out.progress = [in](int32_t done, int32_t total) { return in->progress(in->user_data, done, total); };
    }
    return out;
}

} // namespace lazygguf
