// tensors.cpp: names, shapes and types of a model's tensors.

#include "model/tensors.h"

#include <algorithm>
#include <unordered_set>

#include "base/error.h"
#include "model/architecture.h"
#include "model/file_rules.h"

namespace lazygguf {
namespace {

bool has_kernels(ggml_type type) {
    if (type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16) {
        return true;
    }
    // Q8_1 and Q8_K are formats of activations: no kernel multiplies with such weights
    return ggml_is_quantized(type) && type != GGML_TYPE_Q8_1 && type != GGML_TYPE_Q8_K &&
           ggml_get_type_traits(type)->to_float != nullptr;
}

void check_tensor(const gguf_file & file, const tensor_spec & spec, int64_t i) {
    tensor_numbers tensor;
    tensor.name = spec.name;
    const int64_t * ne = gguf_get_tensor_ne(file.gguf(), i);
    std::copy(ne, ne + GGML_MAX_DIMS, tensor.ne);
    const ggml_type type = gguf_get_tensor_type(file.gguf(), i);
    tensor.type = ggml_type_name(type);
    tensor.has_kernels = has_kernels(type);
    check_tensor(file.path(), tensor, spec.ne0, spec.ne1, spec.use == tensor_use::vector);
}

// A tensor that no layer multiplies with was part of the model when it was trained: without it the logits are others.
// llama.cpp either reads it or refuses the file as well, so there is no list of harmless ones.
void refuse_unread(const gguf_file & file, const hparams & hp, const std::unordered_set<std::string> & read) {
    std::string first;
    int n_unread = 0;
    for (int64_t i = 0; i < gguf_get_n_tensors(file.gguf()); ++i) {
        const char * name = gguf_get_tensor_name(file.gguf(), i);
        if (read.count(name) == 0) {
            first = n_unread++ == 0 ? name : first;
        }
    }
    if (n_unread > 0) {
        const std::string more = n_unread > 1 ? format(" and %d more", n_unread - 1) : "";
        fail(status::bad_file,
             format("%s: tensor '%s'%s is not read by the '%s' architecture, and without it the model would answer "
                    "otherwise; llama.cpp may run this file",
                    file.path().c_str(), first.c_str(), more.c_str(), hp.arch->name));
    }
}

} // namespace

std::string tensor_list::name_of(const char * name, const char * part) const {
    return format("blk.%d.%s.%s", il_, name, part);
}

void tensor_list::vector(const char * name, ggml_tensor *& slot, int64_t n) {
    out_.push_back({name_of(name, "weight"), tensor_use::vector, n, 1, true, il_, &slot});
}

void tensor_list::matrix(const char * name, linear_weights & slot, int64_t n_in, int64_t n_out, bias b) {
    out_.push_back({name_of(name, "weight"), tensor_use::matmul, n_in, n_out, true, il_, &slot.weight});
    if (b != bias::none) {
        out_.push_back({name_of(name, "bias"), tensor_use::vector, n_out, 1, b == bias::required, il_, &slot.bias});
    }
}

void tensor_list::rope_freqs(int64_t n) {
    if (il_ == 0) {
        out_.push_back({ROPE_FREQS, tensor_use::vector, n, 1, false, -1, nullptr});
    }
}

std::vector<tensor_spec> list_tensors(const hparams & hp, model_weights & weights) {
    weights.layers.resize(static_cast<size_t>(hp.n_layer));
    std::vector<tensor_spec> list;
    list.push_back({"token_embd.weight", tensor_use::rows, hp.n_embd, hp.n_vocab, true, -1, &weights.tok_embd});
    for (int il = 0; il < hp.n_layer; ++il) {
        tensor_list layer(list, il);
        hp.arch->tensors(layer, weights.layers[static_cast<size_t>(il)], hp);
    }
    list.push_back({"output_norm.weight", tensor_use::vector, hp.n_embd, 1, true, -1, &weights.output_norm});
    list.push_back({"output.weight", tensor_use::matmul, hp.n_embd, hp.n_vocab, false, -1, &weights.output});
    return list;
}

void check_tensors(const gguf_file & file, const hparams & hp) {
    model_weights unused;
    std::unordered_set<std::string> read;
    for (const tensor_spec & spec : list_tensors(hp, unused)) {
        read.insert(spec.name);
        const int64_t i = gguf_find_tensor(file.gguf(), spec.name.c_str());
        if (i >= 0) {
            check_tensor(file, spec, i);
        } else if (spec.required) {
            fail(status::bad_file,
                 format("%s: tensor '%s' is missing, expected shape [%lld, %lld]", file.path().c_str(),
                        spec.name.c_str(), static_cast<long long>(spec.ne0), static_cast<long long>(spec.ne1)));
        }
    }
    refuse_unread(file, hp, read);
}

} // namespace lazygguf
