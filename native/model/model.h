// model.h: the weights of one model, in the memory of the devices that use them.
//
// Owns loading: which tensor goes into which buffer type (repacked for fast CPU kernels, mapped from the file, or a
// GPU's), and which device runs which layer. After loading, weights are read-only and shared by all sessions.
#pragma once

#include <array>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include <ggml-cpp.h>

#include "devices/devices.h"
#include "devices/rpc.h"
#include "file/mapped_file.h"
#include "model/forms.h"
#include "model/tensors.h"
#include "prune/schedule.h"

namespace lazygguf {

struct layer_weights {
    ggml_tensor * attn_norm = nullptr; // F32 [n_embd]
    ggml_tensor * wq = nullptr;        // [n_embd, n_embd_q]
    ggml_tensor * wk = nullptr;        // [n_embd, n_embd_kv]
    ggml_tensor * wv = nullptr;        // [n_embd, n_embd_kv]
    ggml_tensor * wo = nullptr;        // [n_embd_q, n_embd]
    ggml_tensor * bq = nullptr;        // F32, null where the file has none; the same for the biases below
    ggml_tensor * bk = nullptr;
    ggml_tensor * bv = nullptr;
    ggml_tensor * bo = nullptr;
    ggml_tensor * ffn_norm = nullptr;   // F32 [n_embd]
    ggml_tensor * ffn_gate = nullptr;   // [n_embd, n_ff]
    ggml_tensor * ffn_up = nullptr;     // [n_embd, n_ff]
    ggml_tensor * ffn_down = nullptr;   // [n_ff, n_embd]
    ggml_tensor * rope_freqs = nullptr; // F32 [n_rot/2], null where the file has none
};

// What sessions will need beside the weights; placement makes room for it.
struct session_memory {
    int n_ctx = 0; // 0: n_ctx_train
    int n_ubatch = 512;
    ggml_type type_k = GGML_TYPE_F16;
    ggml_type type_v = GGML_TYPE_F16;
};

struct model_params {
    bool use_mmap = true;
    weight_mode weights = weight_mode::as_is; // of the layers on the CPU
    int n_layer = 0;                          // layers that get a second form; 0: all
    device_request devices;
    keep_schedule schedule; // of the sessions to come: what placement by work goes by
    session_memory memory;
};

struct model {
    model(const std::string & path, const model_params & params);
    ~model();
    model(const model &) = delete;
    model & operator=(const model &) = delete;

    hparams hp;
    std::string desc;                    // one line for people
    ggml_tensor * tok_embd = nullptr;    // [n_embd, n_vocab]
    ggml_tensor * output_norm = nullptr; // F32 [n_embd]
    ggml_tensor * output = nullptr;      // [n_embd, n_vocab]

    // The matrices of a layer in the form that is fastest for so many rows at once.
    const layer_weights & layer(int il, int64_t n_rows) const {
        size_t level = 0;
        while (level < std::size(large_weights::LEVELS) && n_rows >= large_weights::LEVELS[level]) {
            ++level;
        }
        return layers_[level][static_cast<size_t>(il)];
    }

    // Are so many rows multiplied with this matrix by our kernel?
    bool has_our_matmul(const ggml_tensor * weights, int64_t n_rows) const { return large_->is_ours(weights, n_rows); }

    // Is attention on this device ours to choose? Not where the very kernels of llama.cpp are wanted, nor on a GPU.
    bool has_fast_attention(ggml_backend_dev_t dev) const { return weights_ != weight_mode::as_is && dev == cpu_dev; }

    ggml_backend_dev_t cpu_dev = nullptr;
    ggml_backend_dev_t output_dev = nullptr;
    std::vector<ggml_backend_dev_t> layer_devs; // by layer
    rpc_links links;                            // to the servers whose devices are used

    // Devices in use, the CPU last, as ggml_backend_sched wants them.
    std::vector<ggml_backend_dev_t> devices() const;

  private:
    weight_mode weights_ = weight_mode::as_is;
    // by how many rows they are for: fewer than the first of large_weights::LEVELS, at least the first, ...
    std::array<std::vector<layer_weights>, std::size(large_weights::LEVELS) + 1> layers_;
    std::unique_ptr<mapped_file> map_; // kept while a tensor points into it
    std::unique_ptr<large_weights> large_;
    std::vector<ggml_backend_ptr> held_; // keep the connections to RPC servers open
    std::vector<ggml_context_ptr> ctxs_;
    std::vector<ggml_backend_buffer_ptr> buffers_;

    std::string place(const gguf_file & file, const model_params & params);
    std::string load_weights(const gguf_file & file, const model_params & params);
};

// Would `dev` use a tensor of this type, from its plain buffers, as the graphs do?
bool has_kernel(ggml_backend_dev_t dev, const tensor_spec & spec, ggml_type type);

} // namespace lazygguf
