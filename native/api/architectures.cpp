// architectures.cpp: what the files in arch/ say, for callers that write models.

#include <vector>

#include "api/boundary.h"
#include "api/lazygguf.h"
#include "base/error.h"
#include "model/architecture.h"

using namespace lazygguf;

namespace {

hparams hparams_of(const lazy_shape & shape) {
    hparams hp;
    for (const int32_t n :
         {shape.n_vocab, shape.n_embd, shape.n_layer, shape.n_head, shape.n_head_kv, shape.n_embd_head, shape.n_ff}) {
        if (n < 1) {
            fail(status::invalid_argument, format("a number of the shape is %d, expected at least 1", n));
        }
    }
    hp.arch = find_architecture(shape.arch);
    if (hp.arch == nullptr) {
        fail(status::unsupported, format("architecture '%s'; %s", shape.arch, supported_architectures().c_str()));
    }
    hp.n_vocab = shape.n_vocab;
    hp.n_embd = shape.n_embd;
    hp.n_layer = shape.n_layer;
    hp.n_head = shape.n_head;
    hp.n_head_kv = shape.n_head_kv;
    hp.n_embd_head = shape.n_embd_head;
    hp.n_ff = shape.n_ff;
    layer_params layer;
    layer.rope.n_rot = shape.n_embd_head;
    hp.layers.assign(static_cast<size_t>(hp.n_layer), layer);
    return hp;
}

} // namespace

extern "C" {

lazy_status lazy_shape_tensors(lazy_tensor_info * out, bool * required, int32_t n_max, int32_t * n,
                               const lazy_shape * shape) {
    thread_local std::vector<tensor_spec> specs;
    return guarded([&] {
        model_weights unused;
        if (shape->arch == nullptr || n_max < 0) {
            fail(status::invalid_argument, shape->arch == nullptr ? "no architecture is named"
                                                                  : format("n_max is %d, expected at least 0", n_max));
        }
        specs = list_tensors(hparams_of(*shape), unused);
        for (size_t i = 0; i < specs.size() && i < static_cast<size_t>(n_max); ++i) {
            out[i] = {specs[i].name.c_str(), "", {specs[i].ne0, specs[i].ne1, 1, 1}, 0, 0};
            required[i] = specs[i].required;
        }
        *n = static_cast<int32_t>(specs.size());
    });
}

} // extern "C"
