// model.h: the weights of one model, in the memory of the devices that use them.
//
// Owns which device runs which layer, and the memory that loader.cpp fills. After loading, weights are read-only and
// shared by all sessions.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <ggml-cpp.h>

#include "devices/context.h"
#include "devices/devices.h"
#include "devices/rpc.h"
#include "file/mapped_file.h"
#include "model/matrices.h"
#include "model/tensors.h"
#include "prune/schedule.h"

namespace lazygguf {

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
    int n_layer = 0;                          // layers whose matrices are packed; 0: all
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
    model_weights weights; // those that packed() has are without data
    std::string desc;      // one line for people

    const layer_weights & layer(int il) const { return weights.layers[static_cast<size_t>(il)]; }
    // The matrix as our kernels read it; null where ggml multiplies with it.
    const packed_matrix * packed(const ggml_tensor * matrix) const { return matrices_->of(matrix); }
    // Is attention on this device ours to choose? Not where the very kernels of llama.cpp are wanted, nor on a GPU.
    bool has_fast_attention(ggml_backend_dev_t dev) const { return mode_ != weight_mode::as_is && dev == cpu_dev; }

    ggml_backend_dev_t cpu_dev = nullptr;
    ggml_backend_dev_t output_dev = nullptr;
    std::vector<ggml_backend_dev_t> layer_devs; // by layer
    rpc_links links;                            // to the servers whose devices are used

    // Devices in use, the CPU last, as ggml_backend_sched wants them.
    std::vector<ggml_backend_dev_t> devices() const;

  private:
    weight_mode mode_ = weight_mode::as_is;
    std::unique_ptr<mapped_file> map_; // kept while a tensor points into it
    std::unique_ptr<packed_matrices> matrices_;
    std::vector<ggml_backend_ptr> held_; // keep the connections to RPC servers open
    std::vector<context_ptr> ctxs_;
    std::vector<ggml_backend_buffer_ptr> buffers_;

    std::string place(const gguf_file & file, const model_params & params);
    // loader.cpp
    std::string load_weights(const gguf_file & file, const model_params & params);
};

// Would `dev` use a tensor of this type, from its plain buffers, as the graphs do?
bool has_kernel(ggml_backend_dev_t dev, const tensor_spec & spec, ggml_type type);

} // namespace lazygguf
