// devices.cpp: finding devices, and placing layers on them.

#include "devices/devices.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "devices/rpc.h"

namespace lazygguf {
namespace {

constexpr size_t MAX_DEVICES = 15;     // ggml_backend_sched takes 16, the CPU among them
constexpr double USABLE_MEMORY = 0.95; // of what a device says is free

std::string names_of(const std::vector<ggml_backend_dev_t> & devices) {
    std::string text;
    for (ggml_backend_dev_t dev : devices) {
        text += std::string(ggml_backend_dev_name(dev)) + ", ";
    }
    return text;
}

std::vector<ggml_backend_dev_t> of_type(enum ggml_backend_dev_type type) {
    std::vector<ggml_backend_dev_t> devices = local_devices();
    devices.erase(std::remove_if(devices.begin(), devices.end(),
                                 [type](ggml_backend_dev_t dev) { return ggml_backend_dev_type(dev) != type; }),
                  devices.end());
    return devices;
}

// The GPUs of this machine with memory of their own, then those without.
std::vector<ggml_backend_dev_t> local_gpus() {
    std::vector<ggml_backend_dev_t> gpus = of_type(GGML_BACKEND_DEVICE_TYPE_GPU);
    const std::vector<ggml_backend_dev_t> igpus = of_type(GGML_BACKEND_DEVICE_TYPE_IGPU);
    gpus.insert(gpus.end(), igpus.begin(), igpus.end());
    return gpus;
}

// What is used beside `remote` where nobody names a device, as in llama.cpp: every GPU with memory of its own, and the
// first integrated one where there is nothing else.
std::vector<ggml_backend_dev_t> default_gpus(const std::vector<ggml_backend_dev_t> & remote) {
    std::vector<ggml_backend_dev_t> gpus = of_type(GGML_BACKEND_DEVICE_TYPE_GPU);
    if (gpus.empty() && remote.empty()) {
        gpus = of_type(GGML_BACKEND_DEVICE_TYPE_IGPU);
        gpus.resize(std::min<size_t>(gpus.size(), 1));
    }
    return gpus;
}

size_t usable_bytes(ggml_backend_dev_t dev) {
    size_t n_free = 0;
    size_t n_total = 0;
    ggml_backend_dev_memory(dev, &n_free, &n_total);
    return static_cast<size_t>(static_cast<double>(n_free) * USABLE_MEMORY);
}

// A run of layers, the output layer (n_layer) among them, cut over the devices: device k runs [cuts[k], cuts[k + 1]).
struct spread {
    std::vector<int> cuts;
};

class placer {
  public:
    placer(const std::vector<ggml_backend_dev_t> & devices, const layer_costs & costs)
        : devices_(devices), costs_(costs) {
        std::transform(devices.begin(), devices.end(), std::back_inserter(free_), usable_bytes);
    }

    // Cuts [begin, end) by the devices' free memory. A cut moves to a near pruning point, where few rows cross, if all
    // still fits and each device keeps a layer.
    spread cut(int begin, int end) const {
        const spread even = cut_evenly(begin, end);
        spread moved = even;
        const int reach = (end - begin) / (2 * n_devices());
        for (size_t k = 1; k + 1 < moved.cuts.size(); ++k) {
            const int point = near_point(even.cuts[k], reach);
            if (point > moved.cuts[k - 1] && point < even.cuts[k + 1]) {
                moved.cuts[k] = point;
            }
        }
        return fits(moved) ? moved : even;
    }

    bool fits(const spread & s) const {
        for (size_t k = 0; k < devices_.size(); ++k) {
            size_t n = s.cuts[k] < s.cuts[k + 1] ? costs_.n_compute : 0;
            for (int i = s.cuts[k]; i < s.cuts[k + 1]; ++i) {
                n += costs_.n_bytes[static_cast<size_t>(i)] + (i == 0 ? costs_.n_embd_bytes : 0);
            }
            if (n > free_[k]) {
                return false;
            }
        }
        return true;
    }

  private:
    const std::vector<ggml_backend_dev_t> & devices_;
    const layer_costs & costs_;
    std::vector<size_t> free_;

    int n_devices() const { return static_cast<int>(devices_.size()); }

    spread cut_evenly(int begin, int end) const {
        const double total = std::accumulate(free_.begin(), free_.end(), 0.0);
        spread s{{begin}};
        double before = 0.0;
        for (size_t k = 0; k < devices_.size(); ++k) {
            before += total > 0.0 ? static_cast<double>(free_[k]) / total : 1.0 / n_devices();
            s.cuts.push_back(begin + static_cast<int>(std::lround(before * (end - begin))));
        }
        s.cuts.back() = end;
        return s;
    }

    int near_point(int cut, int reach) const {
        int best = cut;
        for (int il = 1; il < static_cast<int>(costs_.share.size()); ++il) {
            const auto u = static_cast<size_t>(il);
            const int distance = std::abs(il - cut);
            const bool is_point = costs_.share[u] < costs_.share[u - 1];
            if (is_point && distance <= reach && (best == cut || distance < std::abs(best - cut))) {
                best = il;
            }
        }
        return best;
    }
};

std::string range_text(int begin, int end, int n_layer) { // [begin, end), the output layer is n_layer
    const int last = std::min(end, n_layer) - 1;
    std::string text;
    if (begin <= last) {
        text = begin == last ? format("layer %d", begin) : format("layers %d-%d", begin, last);
    }
    if (end == n_layer + 1) {
        text += text.empty() ? "the output" : " and the output";
    }
    return text;
}

std::string describe_plan(const device_plan & plan, bool by_work) {
    const int n_layer = static_cast<int>(plan.layers.size());
    const auto dev_of = [&](int i) { return i == n_layer ? plan.output : plan.layers[static_cast<size_t>(i)]; };
    std::string text;
    for (int begin = 0; begin <= n_layer;) {
        int end = begin + 1;
        while (end <= n_layer && dev_of(end) == dev_of(begin)) {
            ++end;
        }
        text += (text.empty() ? "" : ", ") + range_text(begin, end, n_layer) + " on " + describe_device(dev_of(begin));
        begin = end;
    }
    return text + (by_work ? " (where most tokens are computed)" : "");
}

} // namespace

ggml_backend_dev_t cpu_device() {
    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (cpu == nullptr) {
        fail(status::failed, "ggml has no CPU device; reinstall llama-cpp-python");
    }
    return cpu;
}

std::vector<ggml_backend_dev_t> local_devices() {
    std::vector<ggml_backend_dev_t> devices;
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        devices.push_back(ggml_backend_dev_get(i));
    }
    return devices;
}

std::vector<ggml_backend_dev_t> pick_devices(const std::vector<std::string> & names,
                                             const std::vector<ggml_backend_dev_t> & all) {
    std::vector<ggml_backend_dev_t> picked;
    for (const std::string & name : names) {
        const auto found = std::find_if(all.begin(), all.end(),
                                        [&](ggml_backend_dev_t dev) { return name == ggml_backend_dev_name(dev); });
        if (found == all.end()) {
            fail(status::invalid_argument,
                 format("device is '%s', expected one of %snone", name.c_str(), names_of(all).c_str()));
        }
        if (std::find(picked.begin(), picked.end(), *found) == picked.end()) {
            picked.push_back(*found);
        }
    }
    return picked;
}

std::vector<ggml_backend_dev_t> find_devices(const device_request & request) {
    if (request.n_gpu_layers == 0 || request.names == std::vector<std::string>{"none"}) {
        return {};
    }
    std::vector<ggml_backend_dev_t> devices = rpc_devices(request.rpc_servers);
    const std::vector<ggml_backend_dev_t> local = request.names.empty() ? default_gpus(devices) : local_gpus();
    devices.insert(devices.end(), local.begin(), local.end());
    if (!request.names.empty()) {
        devices = pick_devices(request.names, devices);
    }
    if (devices.empty() && request.n_gpu_layers != GPU_LAYERS_AUTO) {
        fail(status::invalid_argument,
             format("n_gpu_layers is %d, but ggml has no GPU device: llama-cpp-python was built for the CPU only; "
                    "use n_gpu_layers=0",
                    request.n_gpu_layers));
    }
    if (devices.size() > MAX_DEVICES) {
        fail(status::invalid_argument, format("%zu devices, expected at most %zu", devices.size(), MAX_DEVICES));
    }
    return devices;
}

std::vector<int> offload_order(const std::vector<double> & share, bool by_work) {
    const int n_layer = static_cast<int>(share.size());
    std::vector<int> order(share.size() + 1);
    if (!by_work || share.front() == share.back()) {
        std::iota(order.rbegin(), order.rend(), 0);
        return order;
    }
    std::iota(order.begin(), order.end(), 0);
    const auto first_segment = std::count(share.begin(), share.end(), share.front());
    std::reverse(order.begin(), order.begin() + first_segment);
    order.back() = n_layer;
    return order;
}

device_plan place_layers(const device_request & request, const std::vector<ggml_backend_dev_t> & devices,
                         const layer_costs & costs) {
    const int n_layer = static_cast<int>(costs.share.size());
    device_plan plan;
    plan.layers.assign(costs.share.size(), cpu_device());
    plan.output = cpu_device();
    if (!devices.empty()) {
        const std::vector<int> order = offload_order(costs.share, request.by_work);
        const placer place(devices, costs);
        const bool is_auto = request.n_gpu_layers == GPU_LAYERS_AUTO;
        int n = request.n_gpu_layers < 0 ? n_layer + 1 : std::min(request.n_gpu_layers, n_layer + 1);
        spread s;
        do { // the first n of the order are neighbours
            const auto [low, high] = std::minmax_element(order.begin(), order.begin() + n);
            s = place.cut(*low, *high + 1);
        } while (is_auto && !place.fits(s) && --n > 0);
        for (size_t k = 0; n > 0 && k < devices.size(); ++k) {
            for (int i = s.cuts[k]; i < s.cuts[k + 1]; ++i) {
                (i == n_layer ? plan.output : plan.layers[static_cast<size_t>(i)]) = devices[k];
            }
        }
        const bool partial = n > 0 && n <= n_layer;
        plan.text = describe_plan(plan, partial && request.by_work && order.front() != n_layer);
    }
    return plan;
}

std::string describe_device(ggml_backend_dev_t dev) {
    const std::string name = ggml_backend_dev_name(dev);
    return is_rpc(dev) ? name + " (" + ggml_backend_dev_description(dev) + ")" : name;
}

} // namespace lazygguf
