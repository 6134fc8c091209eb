// hparams.cpp: reading and checking of the `<arch>.*` keys.

#include "model/hparams.h"

#include "base/error.h"
#include "model/architecture.h"

namespace lazygguf {
namespace {

void refuse(const gguf_file & file, const std::string & what) {
    fail(status::unsupported,
         format("%s: %s; %s", file.path().c_str(), what.c_str(), supported_architectures().c_str()));
}

std::string prefix_of(const gguf_file & file) { return file.get_str("general.architecture") + "."; }

void refuse_split(const gguf_file & file) {
    if (const uint32_t n = file.get_u32("split.count", 0); n > 1) {
        fail(status::unsupported, format("%s: is part of a model split into %u files; merge them into one file first "
                                         "(llama-gguf-split --merge)",
                                         file.path().c_str(), n));
    }
}

// Head counts may be stored per layer; only equal ones are the family this library runs. A missing key fails where the
// fallback is negative.
int read_head_count(const gguf_file & file, const std::string & key, int fallback) {
    const int64_t i = file.find(key);
    if (i < 0) {
        return fallback < 0 ? static_cast<int>(file.get_u32(key)) : fallback;
    }
    if (gguf_get_kv_type(file.gguf(), i) != GGUF_TYPE_ARRAY) {
        return static_cast<int>(file.get_u32(key, 0));
    }
    const size_t n = gguf_get_arr_n(file.gguf(), i);
    for (size_t j = 1; j < n; ++j) {
        if (file.integer(i, static_cast<int64_t>(j)) != file.integer(i, 0)) {
            refuse(file, format("key '%s' differs between layers", key.c_str()));
        }
    }
    const int64_t value = n > 0 ? file.integer(i, 0) : 0;
    check_range(file.path(), key, static_cast<double>(value), 1, 65536);
    return static_cast<int>(value);
}

// Yarn scales the attention by 1 + 0.1 ln(factor) inside ggml's rope; the file's own factor comes on top.
void read_rope_scaling(const gguf_file & file, const std::string & prefix, rope_params & rope) {
    const std::string type = file.get_str(prefix + "scaling.type", "linear"); // llama.cpp's default
    float factor = file.get_f32(prefix + "scaling.factor", 0.0F);
    if (factor == 0.0F) {
        factor = file.get_f32(prefix + "scale_linear", 0.0F); // the name in old files
    }
    factor = factor == 0.0F ? 1.0F : factor;
    check_range(file.path(), "rope.scaling.factor", factor, 1e-3, 1e6);
    rope.attn_factor = file.get_f32(prefix + "scaling.attn_factor", 1.0F);
    check_range(file.path(), "rope.scaling.attn_factor", rope.attn_factor, 1e-3, 1e3);
    if (type == "yarn") {
        rope.ext_factor = 1.0F;
        rope.beta_fast = file.get_f32(prefix + "scaling.yarn_beta_fast", 32.0F);
        rope.beta_slow = file.get_f32(prefix + "scaling.yarn_beta_slow", 1.0F);
        check_range(file.path(), "rope.scaling.yarn_beta_fast", rope.beta_fast, 1e-3, 1e6);
        check_range(file.path(), "rope.scaling.yarn_beta_slow", rope.beta_slow, 1e-3, 1e6);
    } else if (type != "none" && type != "linear") {
        refuse(file, format("rope scaling '%s'", type.c_str()));
    }
    rope.freq_scale = type == "none" ? 1.0F : 1.0F / factor;
}

} // namespace

bool read_flag(const gguf_file & file, const char * key, bool fallback) {
    const int64_t i = file.find(prefix_of(file) + key);
    return i < 0 ? fallback : file.integer(i) != 0;
}

float read_scale(const gguf_file & file, const char * key, float fallback) {
    const float scale = file.get_f32(prefix_of(file) + key, 0.0F);
    if (scale != 0.0F) { // llama.cpp takes 0 as not given
        check_range(file.path(), key, scale, 1e-6, 1e6);
    }
    return scale != 0.0F ? scale : fallback;
}

void refuse_experts(const gguf_file & file) {
    check_experts(file.path(), file.get_u32(prefix_of(file) + "expert_count", 0), supported_architectures());
}

void refuse_windows(const gguf_file & file) {
    if (const uint32_t n = file.get_u32(prefix_of(file) + "attention.sliding_window", 0); n > 0) {
        refuse(file, format("sliding-window attention (%u tokens)", n));
    }
}

void read_shape(const gguf_file & file, hparams & hp) {
    const std::string a = prefix_of(file);
    if (!read_flag(file, "attention.causal", true)) {
        refuse(file, "attention.causal is false: tokens see those behind them");
    }
    hp.n_ctx_train = static_cast<int>(file.get_u32(a + "context_length"));
    hp.n_embd = static_cast<int>(file.get_u32(a + "embedding_length"));
    hp.n_layer = static_cast<int>(file.get_u32(a + "block_count"));
    hp.n_ff = static_cast<int>(file.get_u32(a + "feed_forward_length"));
    hp.n_head = read_head_count(file, a + "attention.head_count", -1);
    hp.n_head_kv = read_head_count(file, a + "attention.head_count_kv", hp.n_head);
    const uint32_t key_length = file.get_u32(a + "attention.key_length", 0);
    const uint32_t value_length = file.get_u32(a + "attention.value_length", key_length);
    layer_params layer;
    layer.rms_eps = file.get_f32(a + "attention.layer_norm_rms_epsilon");
    check_shape(file.path(),
                {hp.n_ctx_train, hp.n_embd, hp.n_layer, hp.n_ff, hp.n_head, hp.n_head_kv, key_length, layer.rms_eps});
    if (key_length != value_length) {
        refuse(file, format("attention.key_length %u differs from value_length %u", key_length, value_length));
    }
    hp.n_embd_head = key_length > 0 ? static_cast<int>(key_length) : hp.n_embd / hp.n_head;
    layer.attn_scale = hp.head_scale();
    hp.layers.assign(static_cast<size_t>(hp.n_layer), layer);
}

void read_rope(const gguf_file & file, hparams & hp, int mode) {
    const std::string prefix = prefix_of(file) + "rope.";
    rope_params rope;
    rope.mode = mode;
    rope.n_rot = static_cast<int>(file.get_u32(prefix + "dimension_count", static_cast<uint32_t>(hp.n_embd_head)));
    check_range(file.path(), "rope.dimension_count", rope.n_rot, 2, hp.n_embd_head);
    if (rope.n_rot % 2 != 0) {
        fail(status::bad_file,
             format("%s: rope.dimension_count is %d, expected an even number", file.path().c_str(), rope.n_rot));
    }
    rope.freq_base = read_freq_base(file, "rope.freq_base", 10000.0F);
    const auto n_ctx_train = static_cast<uint32_t>(hp.n_ctx_train);
    rope.n_ctx_orig = static_cast<int>(file.get_u32(prefix + "scaling.original_context_length", n_ctx_train));
    check_range(file.path(), "rope.scaling.original_context_length", rope.n_ctx_orig, 1, 1 << 30);
    read_rope_scaling(file, prefix, rope);
    for (layer_params & layer : hp.layers) {
        layer.rope = rope;
    }
}

namespace {

// Which layers have a window: by layer in an array, else all but every n-th.
std::vector<bool> windowed_layers(const gguf_file & file, size_t n_layer, uint32_t every) {
    const std::string key = prefix_of(file) + "attention.sliding_window_pattern";
    const int64_t i = file.find(key);
    std::vector<bool> windowed(n_layer);
    if (i >= 0 && gguf_get_kv_type(file.gguf(), i) == GGUF_TYPE_ARRAY) {
        if (gguf_get_arr_n(file.gguf(), i) < n_layer) {
            fail(status::bad_file, format("%s: key '%s' has %zu elements, expected one for each of %zu layers",
                                          file.path().c_str(), key.c_str(), gguf_get_arr_n(file.gguf(), i), n_layer));
        }
        for (size_t il = 0; il < n_layer; ++il) {
            windowed[il] = file.integer(i, static_cast<int64_t>(il)) != 0;
        }
        return windowed;
    }
    const uint32_t n = file.get_u32(key, every);
    for (size_t il = 0; il < n_layer; ++il) {
        windowed[il] = n == 0 || il % n < n - 1;
    }
    return windowed;
}

} // namespace

void read_windows(const gguf_file & file, hparams & hp, uint32_t every) {
    const uint32_t n_window = file.get_u32(prefix_of(file) + "attention.sliding_window", 0);
    if (n_window == 0) {
        return;
    }
    check_range(file.path(), "attention.sliding_window", n_window, 1, 1 << 30);
    const std::vector<bool> windowed = windowed_layers(file, hp.layers.size(), every);
    for (size_t il = 0; il < hp.layers.size(); ++il) {
        hp.layers[il].n_window = windowed[il] ? static_cast<int>(n_window) : 0;
    }
}

float read_freq_base(const gguf_file & file, const char * key, float fallback) {
    const float base = file.get_f32(prefix_of(file) + key, fallback);
    check_range(file.path(), key, base, 1.0, 1e12);
    return base;
}

hparams read_hparams(const gguf_file & file) {
    hparams hp;
    const std::string name = file.get_str("general.architecture");
    hp.arch = find_architecture(name);
    if (hp.arch == nullptr) {
        refuse(file, format("architecture '%s'", name.c_str()));
    }
    refuse_split(file);
    hp.arch->keys(file, hp);

    const int64_t i = gguf_find_tensor(file.gguf(), "token_embd.weight");
    if (i < 0) {
        fail(status::bad_file, format("%s: tensor 'token_embd.weight' is missing", file.path().c_str()));
    }
    const int64_t n_vocab = gguf_get_tensor_ne(file.gguf(), i)[1];
    check_range(file.path(), "rows of token_embd.weight", static_cast<double>(n_vocab), 1, 1 << 24);
    hp.n_vocab = static_cast<int>(n_vocab);
    return hp;
}

} // namespace lazygguf
