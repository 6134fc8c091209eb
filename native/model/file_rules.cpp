// file_rules.cpp: the rules of a model's numbers and tensors.

#include "model/file_rules.h"

#include "base/error.h"

namespace lazygguf {

void check_range(const std::string & path, const std::string & what, double value, double low, double high) {
    if (!(value >= low && value <= high)) {
        fail(status::bad_file,
             format("%s: %s is %g, expected a value in [%g, %g]", path.c_str(), what.c_str(), value, low, high));
    }
}

void check_shape(const std::string & path, const shape_numbers & shape) {
    const auto check = [&](const char * what, int64_t value, double high) {
        check_range(path, what, static_cast<double>(value), 1, high);
    };
    check("context_length", shape.n_ctx_train, 1 << 30);
    check("embedding_length", shape.n_embd, 1 << 20);
    check("block_count", shape.n_layer, MAX_LAYERS);
    check("feed_forward_length", shape.n_ff, 1 << 24);
    check("attention.head_count", shape.n_head, 4096);
    check("attention.head_count_kv", shape.n_head_kv, static_cast<double>(shape.n_head));
    if (shape.n_head % shape.n_head_kv != 0) {
        fail(status::bad_file,
             format("%s: attention.head_count is %lld, expected a multiple of head_count_kv %lld", path.c_str(),
                    static_cast<long long>(shape.n_head), static_cast<long long>(shape.n_head_kv)));
    }
    if (shape.key_length == 0 && shape.n_embd % shape.n_head != 0) {
        fail(status::bad_file,
             format("%s: embedding_length is %lld, expected a multiple of attention.head_count %lld", path.c_str(),
                    static_cast<long long>(shape.n_embd), static_cast<long long>(shape.n_head)));
    }
    check("attention.key_length", shape.key_length > 0 ? shape.key_length : shape.n_embd / shape.n_head, 4096);
    check_range(path, "attention.layer_norm_rms_epsilon", shape.rms_eps, 1e-12, 1.0);
}

void check_experts(const std::string & path, uint32_t n_experts, const std::string & supported) {
    if (n_experts > 0) {
        fail(status::unsupported, format("%s: mixture of %u experts; %s", path.c_str(), n_experts, supported.c_str()));
    }
}

void check_tensor(const std::string & path, const tensor_numbers & tensor, int64_t ne0, int64_t ne1, bool is_vector) {
    const char * name = tensor.name.c_str();
    const int64_t * ne = tensor.ne;
    if (ne[0] != ne0 || ne[1] != ne1 || ne[2] != 1 || ne[3] != 1) {
        fail(status::bad_file,
             format("%s: tensor '%s' has shape [%lld, %lld, %lld, %lld], expected [%lld, %lld, 1, 1]", path.c_str(),
                    name, static_cast<long long>(ne[0]), static_cast<long long>(ne[1]), static_cast<long long>(ne[2]),
                    static_cast<long long>(ne[3]), static_cast<long long>(ne0), static_cast<long long>(ne1)));
    }
    if (is_vector && tensor.type != "f32") {
        fail(status::bad_file,
             format("%s: tensor '%s' is of type %s, expected f32", path.c_str(), name, tensor.type.c_str()));
    }
    if (!tensor.has_kernels) {
        fail(status::unsupported,
             format("%s: tensor '%s' is of type %s, which ggml has no kernel for; quantize the model to another type",
                    path.c_str(), name, tensor.type.c_str()));
    }
}

} // namespace lazygguf
