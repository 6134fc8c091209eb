// support.h: where the caches of a session can lie.
//
// Owns the questions to devices that must be answered before there is memory: a K/V row can only be written and
// attended to where it lies. All other nodes of a graph are asked for one by one when the graph is built (compute).
#pragma once

#include <string>
#include <vector>

#include "model/model.h"

namespace lazygguf {

struct cache_types {
    ggml_type k = GGML_TYPE_F16;
    ggml_type v = GGML_TYPE_F16;
};

struct cache_devices {
    std::vector<ggml_backend_dev_t> kv;  // by layer: its K/V rows and its attention
    std::vector<ggml_backend_dev_t> aux; // by layer: the aux rows that it leaves, where it ends a segment
    std::vector<std::string> notes;      // what is on the CPU though the layer is not, and why
};

// A layer's device for all it can do, the CPU for the rest.
cache_devices place_caches(const model & mdl, cache_types types, int n_ubatch);

// What keeps `device` from running all of a model with an F16 cache: one kind of weights or operation a line, "" where
// nothing does. Fails with INVALID_ARGUMENT where there is no such GPU.
std::string lacking_kernels(const gguf_file & file, const std::string & device);

} // namespace lazygguf
