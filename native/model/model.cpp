// model.cpp: which device runs which layer.

#include "model/model.h"

#include <algorithm>

#include "base/error.h"
#include "file/vocab.h"

namespace lazygguf {

model::model(const std::string & path, const model_params & params) : mode_(params.weights) {
    const gguf_file file(path);
    hp = read_hparams(file);
    check_schedule(params.schedule, hp.n_layer, hp.n_head);
    check_tensors(file, hp);
    if (file.has("tokenizer.ggml.model")) { // a file without tokenizer still evaluates token ids
        check_vocab(file, hp.n_vocab);
    }
    const std::string placed = place(file, params);
    desc = load_weights(file, params) + placed;
}

model::~model() = default;

namespace {

size_t tensor_bytes(const gguf_file & file, const std::string & name) {
    const int64_t i = gguf_find_tensor(file.gguf(), name.c_str());
    return i < 0 ? 0 : gguf_get_tensor_size(file.gguf(), i);
}

layer_costs costs_of(const gguf_file & file, const hparams & hp, const model_params & params) {
    const session_memory & m = params.memory;
    const auto n_ctx = static_cast<double>(m.n_ctx == 0 ? hp.n_ctx_train : m.n_ctx);
    layer_costs costs;
    costs.share = layer_shares(params.schedule, hp.n_layer);
    costs.n_bytes.assign(costs.share.size() + 1, 0);
    model_weights unused;
    for (const tensor_spec & spec : list_tensors(hp, unused)) {
        if (spec.il >= 0) {
            costs.n_bytes[static_cast<size_t>(spec.il)] += tensor_bytes(file, spec.name);
        }
    }
    const size_t row = ggml_row_size(m.type_k, hp.n_embd_kv()) + ggml_row_size(m.type_v, hp.n_embd_kv());
    const size_t aux_row = static_cast<size_t>(hp.n_embd) * sizeof(float);
    for (size_t il = 0; il < costs.share.size(); ++il) {
        const bool ends_segment = il + 1 < costs.share.size() && costs.share[il + 1] < costs.share[il];
        costs.n_bytes[il] += static_cast<size_t>(n_ctx * costs.share[il]) * row;
        costs.n_bytes[il] += ends_segment ? static_cast<size_t>(n_ctx) * aux_row : 0;
    }
    costs.n_embd_bytes = tensor_bytes(file, "token_embd.weight");
    const size_t output = tensor_bytes(file, "output.weight");
    costs.n_bytes.back() = output == 0 ? costs.n_embd_bytes : output;
    // of one ubatch: hidden rows, Q/K/V, the three rows of the feed-forward part, and the mask twice
    const size_t row_floats = 6 * static_cast<size_t>(hp.n_embd) + 4 * static_cast<size_t>(hp.n_embd_q()) +
                              3 * static_cast<size_t>(hp.n_ff) + 2 * static_cast<size_t>(n_ctx);
    costs.n_compute = static_cast<size_t>(m.n_ubatch) * row_floats * sizeof(float);
    return costs;
}

} // namespace

// Says where the layers are, "" where all are on the CPU.
std::string model::place(const gguf_file & file, const model_params & params) {
    cpu_dev = cpu_device();
    const std::vector<ggml_backend_dev_t> found = find_devices(params.devices);
    for (ggml_backend_dev_t dev : found) {
        if (is_rpc(dev)) {
            held_.emplace_back(ggml_backend_dev_init(dev, nullptr)); // from now on the connection stays
            links.add(ggml_backend_dev_description(dev));
        }
    }
    const device_plan plan = place_layers(params.devices, found, costs_of(file, hp, params));
    layer_devs = plan.layers;
    output_dev = plan.output;
    return plan.text.empty() ? "" : "; " + plan.text;
}

std::vector<ggml_backend_dev_t> model::devices() const {
    std::vector<ggml_backend_dev_t> devs;
    std::vector<ggml_backend_dev_t> all = layer_devs;
    all.push_back(output_dev);
    for (ggml_backend_dev_t dev : all) {
        if (dev != cpu_dev && std::find(devs.begin(), devs.end(), dev) == devs.end()) {
            devs.push_back(dev);
        }
    }
    devs.push_back(cpu_dev);
    return devs;
}

} // namespace lazygguf
