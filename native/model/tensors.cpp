// tensors.cpp: names, shapes and types of a model's tensors.

#include "model/tensors.h"

#include "base/error.h"

namespace lazygguf {
namespace {

void list_layer(const hparams & hp, int il, std::vector<tensor_spec> & list) {
    const std::string blk = "blk." + std::to_string(il) + ".";
    const int64_t n_embd = hp.n_embd;
    const int64_t n_q = hp.n_embd_q();
    const int64_t n_kv = hp.n_embd_kv();
    const bool qkv_bias = hp.arch == "qwen2";
    list.push_back({blk + "attn_norm.weight", tensor_use::vector, n_embd, 1, true, il});
    list.push_back({blk + "attn_q.weight", tensor_use::matmul, n_embd, n_q, true, il});
    list.push_back({blk + "attn_k.weight", tensor_use::matmul, n_embd, n_kv, true, il});
    list.push_back({blk + "attn_v.weight", tensor_use::matmul, n_embd, n_kv, true, il});
    list.push_back({blk + "attn_q.bias", tensor_use::vector, n_q, 1, qkv_bias, il});
    list.push_back({blk + "attn_k.bias", tensor_use::vector, n_kv, 1, qkv_bias, il});
    list.push_back({blk + "attn_v.bias", tensor_use::vector, n_kv, 1, qkv_bias, il});
    list.push_back({blk + "attn_output.weight", tensor_use::matmul, n_q, n_embd, true, il});
    list.push_back({blk + "attn_output.bias", tensor_use::vector, n_embd, 1, false, il});
    list.push_back({blk + "ffn_norm.weight", tensor_use::vector, n_embd, 1, true, il});
    list.push_back({blk + "ffn_gate.weight", tensor_use::matmul, n_embd, hp.n_ff, true, il});
    list.push_back({blk + "ffn_up.weight", tensor_use::matmul, n_embd, hp.n_ff, true, il});
    list.push_back({blk + "ffn_down.weight", tensor_use::matmul, hp.n_ff, n_embd, true, il});
}

bool has_kernels(ggml_type type) {
    if (type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16) {
        return true;
    }
    // Q8_1 and Q8_K are formats of activations: no kernel multiplies with such weights
    return ggml_is_quantized(type) && type != GGML_TYPE_Q8_1 && type != GGML_TYPE_Q8_K &&
           ggml_get_type_traits(type)->to_float != nullptr;
}

void check_tensor(const gguf_file & file, const tensor_spec & spec, int64_t i) {
    const int64_t * ne = gguf_get_tensor_ne(file.gguf(), i);
    const auto n0 = static_cast<long long>(ne[0]);
    const auto n1 = static_cast<long long>(ne[1]);
    if (ne[0] != spec.ne0 || ne[1] != spec.ne1 || ne[2] != 1 || ne[3] != 1) {
        fail(status::bad_file,
             format("%s: tensor '%s' has shape [%lld, %lld, %lld, %lld], expected [%lld, %lld, 1, 1]",
                    file.path().c_str(), spec.name.c_str(), n0, n1, static_cast<long long>(ne[2]),
                    static_cast<long long>(ne[3]), static_cast<long long>(spec.ne0), static_cast<long long>(spec.ne1)));
    }
    const ggml_type type = gguf_get_tensor_type(file.gguf(), i);
    if (spec.use == tensor_use::vector && type != GGML_TYPE_F32) {
        fail(status::bad_file, format("%s: tensor '%s' is of type %s, expected f32", file.path().c_str(),
                                      spec.name.c_str(), ggml_type_name(type)));
    }
    if (!has_kernels(type)) {
        fail(status::unsupported,
             format("%s: tensor '%s' is of type %s, which ggml has no kernel for; quantize the model to another type",
                    file.path().c_str(), spec.name.c_str(), ggml_type_name(type)));
    }
}

} // namespace

std::vector<tensor_spec> list_tensors(const hparams & hp) {
    std::vector<tensor_spec> list;
    list.push_back({"token_embd.weight", tensor_use::rows, hp.n_embd, hp.n_vocab, true, -1});
    if (hp.arch == "llama") { // llama.cpp reads it for this architecture only
        list.push_back({"rope_freqs.weight", tensor_use::vector, hp.rope.n_rot / 2, 1, false, -1});
    }
    for (int il = 0; il < hp.n_layer; ++il) {
        list_layer(hp, il, list);
    }
    list.push_back({"output_norm.weight", tensor_use::vector, hp.n_embd, 1, true, -1});
    list.push_back({"output.weight", tensor_use::matmul, hp.n_embd, hp.n_vocab, false, -1});
    return list;
}

void check_tensors(const gguf_file & file, const hparams & hp) {
    for (const tensor_spec & spec : list_tensors(hp)) {
        const int64_t i = gguf_find_tensor(file.gguf(), spec.name.c_str());
        if (i >= 0) {
            check_tensor(file, spec, i);
        } else if (spec.required) {
            fail(status::bad_file,
                 format("%s: tensor '%s' is missing, expected shape [%lld, %lld]", file.path().c_str(),
                        spec.name.c_str(), static_cast<long long>(spec.ne0), static_cast<long long>(spec.ne1)));
        }
    }
}

} // namespace lazygguf
