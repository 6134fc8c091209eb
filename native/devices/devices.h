// devices.h: which devices there are, and which of them runs which layer.
//
// Owns the choice, before any weight is loaded. Layers are counted as llama.cpp counts them: n_layer of them and the
// output layer after them.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include <ggml-backend.h>

namespace lazygguf {

constexpr int GPU_LAYERS_AUTO = -2; // as many as fit

struct device_request {
    int n_gpu_layers = 0;                 // -1: all, or GPU_LAYERS_AUTO
    std::vector<std::string> names;       // empty: every GPU; "none": the CPU alone
    std::vector<std::string> rpc_servers; // "HOST:PORT"; their devices come before the local ones
    bool by_work = true;                  // the layers that see the most tokens, else the last ones
};

// What each layer costs; the output layer comes last.
struct layer_costs {
    std::vector<double> share;   // (n_layer) of the tokens that the layer computes, never rising
    std::vector<size_t> n_bytes; // (n_layer + 1) weights, K/V and aux rows
    size_t n_embd_bytes = 0;     // the embeddings, which go with layer 0
    size_t n_compute = 0;        // compute buffers of each device
};

struct device_plan {
    std::vector<ggml_backend_dev_t> layers; // by layer
    ggml_backend_dev_t output = nullptr;
    std::string text; // "layers 0-10 on Vulkan0, 11-23 and the output on CPU (where most tokens are computed)"
};

ggml_backend_dev_t cpu_device();

// Every device that ggml has in this process, without RPC ones.
std::vector<ggml_backend_dev_t> local_devices();

// Those of `all` that have these names, in their order. Fails with INVALID_ARGUMENT where there is no such device.
std::vector<ggml_backend_dev_t> pick_devices(const std::vector<std::string> & names,
                                             const std::vector<ggml_backend_dev_t> & all);

// The GPUs and RPC devices a request names; none where n_gpu_layers is 0. Fails with INVALID_ARGUMENT where there is no
// such device, or none at all.
std::vector<ggml_backend_dev_t> find_devices(const device_request & request);

device_plan place_layers(const device_request & request, const std::vector<ggml_backend_dev_t> & devices,
                         const layer_costs & costs);

// The order in which layers go to a GPU as n_gpu_layers grows, the output layer (n_layer) among them. By work: the
// first segment's layers, which see every token, last ones first, since at its end few rows cross to another device;
// then the later ones as they come. Else, and where all layers see the same: the last ones, as llama.cpp.
std::vector<int> offload_order(const std::vector<double> & share, bool by_work);

// "CPU", "Vulkan0", "RPC0 (127.0.0.1:50052)"
std::string describe_device(ggml_backend_dev_t dev);

} // namespace lazygguf
