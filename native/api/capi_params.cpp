// capi_params.cpp: the structs of the C interface, checked and as the core takes them.

#include "api/capi_params.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <sstream>

#include "base/error.h"

namespace lazygguf {
namespace {

void check_version(const char * what, int32_t version) {
    if (version != LAZY_VERSION) {
        fail(status::invalid_argument, format("%s.version is %d, expected %d", what, version, LAZY_VERSION));
    }
}

weight_mode read_weights(lazy_weights weights) {
    switch (weights) {
        case LAZY_WEIGHTS_AS_IS: return weight_mode::as_is;
        case LAZY_WEIGHTS_FAST: return weight_mode::fast;
    }
    fail(status::invalid_argument,
         format("weights is %d, expected a value of lazy_weights", static_cast<int>(weights)));
}

// Whatever their case.
bool same_letters(const char * a, const char * b) {
    for (; *a != '\0' && *b != '\0'; ++a, ++b) {
        if (std::tolower(static_cast<unsigned char>(*a)) != std::tolower(static_cast<unsigned char>(*b))) {
            return false;
        }
    }
    return *a == *b;
}

void check_in_schedule(bool ok, const std::string & message) {
    if (!ok) {
        fail(status::invalid_argument, "keep schedule: " + message);
    }
}

// Heads grouped by their layers, ascending, or the mean over each of the last n_layers; il_begin is the segment's
// first layer. None where the scores come from outside, or where il is one that check_schedule refuses.
std::vector<scored_layer> read_scored(const lazy_point & p, int il_begin) {
    check_in_schedule(p.n_heads >= 0 && (p.heads == nullptr) == (p.n_heads == 0), "heads and n_heads disagree");
    if (p.il < il_begin || p.il >= MAX_LAYERS) {
        return {};
    }
    const int n_most = p.il + 1 - il_begin;
    check_in_schedule(p.n_layers >= 1 && p.n_layers <= n_most,
                      format("n_layers is %d after layer %d, expected a value in [1, %d]", p.n_layers, p.il, n_most));
    std::vector<scored_layer> out;
    for (int il = p.il - p.n_layers + 1; p.n_heads == 0 && il <= p.il; ++il) {
        out.push_back({il, {}});
    }
    std::map<int, std::vector<int>> by_layer;
    for (int i = 0; i < p.n_heads; ++i) {
        by_layer[p.head_layers == nullptr ? p.il : p.head_layers[i]].push_back(p.heads[i]);
    }
    for (auto & [il, heads] : by_layer) {
        out.push_back({il, std::move(heads)});
    }
    return out;
}

void check_at_least(const char * what, int32_t value, int32_t low) {
    if (value < low) {
        fail(status::invalid_argument, format("%s is %d, expected at least %d", what, value, low));
    }
}

ggml_type read_dtype(const char * what, lazy_kv_dtype dtype) {
    const auto type = static_cast<ggml_type>(dtype);
    if (type != GGML_TYPE_F16 && type != GGML_TYPE_F32 && type != GGML_TYPE_Q8_0) {
        fail(status::invalid_argument, format("%s is %d, expected f16, f32 or q8_0", what, static_cast<int>(dtype)));
    }
    return type;
}

// K/V of a quantized type are read head by head, so a head must be whole blocks.
ggml_type read_dtype(const char * what, lazy_kv_dtype dtype, const hparams & hp) {
    const ggml_type type = read_dtype(what, dtype);
    if (hp.n_embd_head % ggml_blck_size(type) != 0) {
        fail(status::invalid_argument,
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
        fail(status::invalid_argument, "attention is wanted of no layer, or nowhere");
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
    check_at_least("n_layer", in.n_layer, 0);
    if (in.placement != LAZY_PLACEMENT_WORK && in.placement != LAZY_PLACEMENT_LAST) {
        fail(status::invalid_argument,
             format("placement is %d, expected a value of lazy_placement", static_cast<int>(in.placement)));
    }
    model_params out;
    out.use_mmap = in.use_mmap;
    out.weights = read_weights(in.weights);
    out.n_layer = in.n_layer;
    out.devices = {in.n_gpu_layers, split(in.devices), split(in.rpc_servers), in.placement == LAZY_PLACEMENT_WORK};
    out.schedule = read_schedule(in.schedule);
    out.memory = {in.n_ctx, in.n_ubatch, read_dtype("type_k", in.type_k), read_dtype("type_v", in.type_v)};
    return out;
}

keep_schedule read_schedule(const lazy_schedule * schedule) {
    keep_schedule out;
    if (schedule == nullptr) {
        return out;
    }
    check_version("lazy_schedule", schedule->version);
    check_in_schedule(schedule->n_points >= 0 && schedule->n_points < MAX_SEGMENTS,
                      format("%d pruning points, expected at most %d", schedule->n_points, MAX_SEGMENTS - 1));
    for (int i = 0; i < schedule->n_points; ++i) {
        const lazy_point & p = schedule->points[i];
        const int il_begin = i == 0 ? 0 : std::clamp(schedule->points[i - 1].il, -1, MAX_LAYERS) + 1;
        const pruning_point point = {p.il,       p.keep,     read_scored(p, il_begin), p.n_query, p.pool, p.mass,
                                     p.keep_min, p.query_max};
        if (p.il == -1 && i == 0) {
            out.entry = point;
        } else {
            out.points.push_back(point);
        }
    }
    out.n_sink = schedule->n_sink;
    out.min_prompt = schedule->min_prompt;
    out.max_revive = schedule->max_revive;
    out.revive_margin = schedule->revive_margin;
    out.mean_revive = schedule->mean_revive;
    out.decode_cached = schedule->decode_cached;
    out.dense_unasked = schedule->dense_unasked;
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
        fail(status::invalid_argument,
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
    out.hints.question = {in->query_begin, in->query_end};
    out.hints.protect.assign(in->protect, in->protect + in->n_protect);
    out.hints.scores = in->scores;
    out.hints.n_scores = in->n_scores;
    out.attention = read_attention(in->attention);
    if (in->progress != nullptr) {
        out.progress = [in](int32_t done, int32_t total) { return in->progress(in->user_data, done, total); };
    }
    return out;
}

kernel_case read_kernel_case(const char * type_name, int64_t n_in, int64_t n_out, int64_t n_rows, bool is_ours,
                             int32_t n_threads) {
    constexpr int64_t MOST = 1 << 20;
    const auto check = [](const char * what, int64_t n) {
        if (n < 1 || n > MOST) {
            fail(status::invalid_argument, format("%s is %lld, expected a value in [1, %lld]", what,
                                                  static_cast<long long>(n), static_cast<long long>(MOST)));
        }
    };
    check("n_in", n_in);
    check("n_out", n_out);
    check("n_rows", n_rows);
    check("n_threads", n_threads);
    for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
        const auto type = static_cast<ggml_type>(i);
        if (ggml_get_type_traits(type)->to_float == nullptr && type != GGML_TYPE_F32) {
            continue;
        }
        if (same_letters(ggml_type_name(type), type_name)) {
            if (n_in % ggml_blck_size(type) != 0) {
                fail(status::invalid_argument,
                     format("n_in is %lld, expected a multiple of %lld for %s", static_cast<long long>(n_in),
                            static_cast<long long>(ggml_blck_size(type)), type_name));
            }
            return {type, n_in, n_out, n_rows, is_ours, std::min(n_threads, 512)};
        }
    }
    fail(status::invalid_argument, format("there is no type '%s'", type_name));
}

} // namespace lazygguf
