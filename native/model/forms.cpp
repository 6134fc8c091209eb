// forms.cpp: choice, memory and conversion of second forms.

#include "model/forms.h"

#include <algorithm>
#include <cstring>
#include <thread>
#include <unistd.h>

#include "base/error.h"
#include "kernels/matmul.h"

namespace lazygguf {
namespace {

// Least speed-up that justifies a second form: one that is mapped from the file, and one that is copied.
constexpr double MIN_GAIN_MAPPED = 1.10;
constexpr double MIN_GAIN_COPIED = 1.35;
// Second forms may take 1/MEMORY_PARTS of the machine's memory.
constexpr size_t MEMORY_PARTS = 4;

size_t second_memory() {
    const long n_pages = sysconf(_SC_PHYS_PAGES);
    const long page_size = sysconf(_SC_PAGESIZE);
    return n_pages > 0 && page_size > 0 ? static_cast<size_t>(n_pages) / MEMORY_PARTS * static_cast<size_t>(page_size)
                                        : 0;
}

// Rounds F32 values to a 16-bit type.
void to_16_bit(const float * x, void * y, int64_t n, ggml_type type) {
    if (type == GGML_TYPE_BF16) {
        ggml_fp32_to_bf16_row(x, static_cast<ggml_bf16_t *>(y), n);
    } else {
        ggml_fp32_to_fp16_row(x, static_cast<ggml_fp16_t *>(y), n);
    }
}

} // namespace

bool may_hold_twice(size_t n_bytes) { return n_bytes <= second_memory(); }

weight_forms::weight_forms(ggml_backend_dev_t cpu_dev, weight_mode mode)
    : dev_(cpu_dev), plain_(ggml_backend_dev_buffer_type(cpu_dev)), mode_(mode), budget_(second_memory()) {}

weight_forms::choice weight_forms::choose(const ggml_tensor * small, ggml_backend_buffer_type_t buft) {
    if (mode_ == weight_mode::force_bf16) {
        return {GGML_TYPE_BF16, false};
    }
    const bool has_ours = has_matmul(small->type, small->ne[0], small->ne[1]);
    if (mode_ == weight_mode::force_matmul) {
        return has_ours ? choice{small->type, true, true} : choice{};
    }
    const auto [it, is_new] = chosen_.try_emplace({small->type, buft});
    if (is_new) {
        it->second = fastest({small->type, buft});
    }
    return it->second.is_ours && !has_ours ? choice{} : it->second;
}

weight_forms::choice weight_forms::fastest(const kernel & small) const {
    const double as_is = kernel_speed(dev_, small);
    const double mapped = small.buft == plain_ ? as_is : kernel_speed(dev_, {small.type, plain_});
    const double ours = kernel_speed(dev_, {small.type, plain_, true});
    double best = MIN_GAIN_COPIED * std::max({as_is, mapped, ours});
    std::optional<ggml_type> copy;
    for (const ggml_type type : {GGML_TYPE_BF16, GGML_TYPE_F16}) {
        if (const double speed = kernel_speed(dev_, {type, plain_}); speed > best) {
            best = speed;
            copy = type;
        }
    }
    if (copy) {
        return {copy, false};
    }
    if (ours >= MIN_GAIN_MAPPED * as_is && ours >= mapped) {
        const double one = kernel_speed(dev_, {small.type, plain_, true}, ONE_ROW);
        return {small.type, true, one >= MIN_GAIN_MAPPED * kernel_speed(dev_, small, ONE_ROW)};
    }
    return small.buft != plain_ && mapped >= MIN_GAIN_MAPPED * as_is ? choice{small.type, false} : choice{};
}

void weight_forms::add(ggml_tensor * small, ggml_backend_buffer_type_t small_buft, size_t offset) {
    if (mode_ == weight_mode::as_is || !ggml_is_quantized(small->type)) {
        return;
    }
    const choice c = choose(small, small_buft);
    if (!c.type) {
        return;
    }
    const ggml_tensor * large = small;
    if (c.type != small->type || small_buft != plain_) {
        large = new_form(small, *c.type, offset, c.is_ours ? LEVELS[0] : c.type != small->type ? LEVELS[1] : LEVELS[2]);
    }
    if (c.is_ours && large != nullptr) {
        ours_[large] = c.is_ours_for_one ? 1 : LEVELS[0];
        ours_bytes_[small->type] += ggml_nbytes(small);
    }
}

// Null if the budget is used up. The first layers come first, since they see the most tokens.
ggml_tensor * weight_forms::new_form(const ggml_tensor * small, ggml_type type, size_t offset, int64_t min_rows) {
    const size_t n_bytes = ggml_row_size(type, small->ne[0]) * static_cast<size_t>(small->ne[1]);
    if (n_bytes > budget_) {
        return nullptr;
    }
    budget_ -= n_bytes;
    ggml_init_params params = {ggml_tensor_overhead(), nullptr, /*no_alloc=*/true};
    ctxs_.emplace_back(ggml_init(params));
    ggml_tensor * large = ggml_new_tensor_2d(ctxs_.back().get(), type, small->ne[0], small->ne[1]);
    ggml_set_name(large, small->name);
    of_[small] = forms_.size();
    forms_.push_back({small, large, offset, min_rows});
    return large;
}

ggml_tensor * weight_forms::at(ggml_tensor * small, int64_t n_rows) const {
    const auto it = of_.find(small);
    return it != of_.end() && forms_[it->second].min_rows <= n_rows ? forms_[it->second].large : small;
}

bool weight_forms::maps(const ggml_tensor * small) const {
    const auto it = of_.find(small);
    return it != of_.end() && forms_[it->second].is_copy();
}

void weight_forms::load(const mapped_file & map, bool map_plain) {
    ggml_backend_buffer_ptr mapping(ggml_backend_cpu_buffer_from_ptr(map.data(), map.size()));
    ggml_backend_buffer_set_usage(mapping.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    for (size_t i = 0; i < forms_.size(); ++i) {
        const form & f = forms_[i];
        const char * data = map.data() + f.offset;
        if (f.is_copy() && map_plain) {
            ggml_backend_tensor_alloc(mapping.get(), f.large, map.data() + f.offset);
            continue;
        }
        buffers_.emplace_back(ggml_backend_alloc_ctx_tensors_from_buft(ctxs_[i].get(), plain_));
        if (!buffers_.back()) {
            fail(status::no_memory, format("cannot allocate %zu bytes for weights in a faster type; "
                                           "weights='as-is' needs none",
                                           ggml_nbytes(f.large)));
        }
        ggml_backend_buffer_set_usage(buffers_.back().get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
        if (f.is_copy()) {
            std::memcpy(f.large->data, data, ggml_nbytes(f.large));
        } else {
            convert(f, data);
        }
        map.drop(f.offset, ggml_row_size(f.small->type, f.small->ne[0]) * static_cast<size_t>(f.small->ne[1]));
    }
    if (map_plain) {
        buffers_.push_back(std::move(mapping));
    }
}

// Dequantises the matrix row by row, on every core.
void weight_forms::convert(const form & f, const char * data) const {
    const int64_t n_in = f.large->ne[0];
    const int64_t n_out = f.large->ne[1];
    const size_t row_size = ggml_row_size(f.small->type, n_in);
    const ggml_to_float_t to_float = ggml_get_type_traits(f.small->type)->to_float;
    const auto rows = [&](int64_t begin, int64_t end) {
        std::vector<float> values(static_cast<size_t>(n_in));
        for (int64_t i = begin; i < end; ++i) {
            to_float(data + static_cast<size_t>(i) * row_size, values.data(), n_in);
            to_16_bit(values.data(), static_cast<char *>(f.large->data) + static_cast<size_t>(i) * f.large->nb[1], n_in,
                      f.large->type);
        }
    };
    const auto n_threads = static_cast<int64_t>(std::max(1U, std::thread::hardware_concurrency()));
    std::vector<std::thread> threads;
    for (int64_t t = 1; t < n_threads; ++t) {
        threads.emplace_back(rows, n_out * t / n_threads, n_out * (t + 1) / n_threads);
    }
    rows(0, n_out / n_threads);
    for (std::thread & thread : threads) {
        thread.join();
    }
}

std::string weight_forms::describe() const {
    std::map<std::string, size_t> bytes;
    for (const auto & [type, n] : ours_bytes_) {
        bytes[ggml_type_name(type) + std::string(" by our kernel")] += n;
    }
    for (const form & f : forms_) {
        const std::string what =
            f.is_copy() ? " as it lies in the file" : format(" as %s", ggml_type_name(f.large->type));
        if (ours_.count(f.large) == 0) {
            bytes[ggml_type_name(f.small->type) + what] += ggml_nbytes(f.large);
        }
    }
    std::string text;
    for (const auto & [what, n] : bytes) {
        text += format("%s%s %.1f MiB", text.empty() ? "" : ", ", what.c_str(), static_cast<double>(n) / 1048576.0);
    }
    return text;
}

} // namespace lazygguf
