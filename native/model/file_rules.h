// file_rules.h: which numbers and tensors of a file a model can be built from.
//
// Numbers and texts in, a refusal out: knows no file and no ggml. What a file says is read in hparams.cpp and
// tensors.cpp. Messages begin with `path`.
#pragma once

#include <cstdint>
#include <string>

namespace lazygguf {

constexpr int MAX_LAYERS = 1024; // no file with more is accepted

// The sizes of a model, as its file says them.
struct shape_numbers {
    int64_t n_ctx_train = 0; // context_length
    int64_t n_embd = 0;      // embedding_length
    int64_t n_layer = 0;     // block_count
    int64_t n_ff = 0;        // feed_forward_length
    int64_t n_head = 0;      // attention.head_count
    int64_t n_head_kv = 0;   // attention.head_count_kv
    int64_t key_length = 0;  // attention.key_length; 0: the file has none, a head is n_embd / n_head wide
    double rms_eps = 0.0;    // attention.layer_norm_rms_epsilon
};

// What a file says of one tensor.
struct tensor_numbers {
    std::string name;
    int64_t ne[4] = {0, 1, 1, 1};
    std::string type;        // ggml's name of it
    bool has_kernels = true; // something multiplies with weights of this type
};

// Fails with BAD_FILE unless the value lies in [low, high].
void check_range(const std::string & path, const std::string & what, double value, double low, double high);

// Fails with BAD_FILE where a size is out of range, or two do not fit together.
void check_shape(const std::string & path, const shape_numbers & shape);

// Fails with UNSUPPORTED for a mixture of experts; `supported` says what runs.
void check_experts(const std::string & path, uint32_t n_experts, const std::string & supported);

// Fails with BAD_FILE unless the tensor has the shape [ne0, ne1] and, as a vector, is F32; with UNSUPPORTED where its
// type has no kernels.
void check_tensor(const std::string & path, const tensor_numbers & tensor, int64_t ne0, int64_t ne1, bool is_vector);

} // namespace lazygguf
