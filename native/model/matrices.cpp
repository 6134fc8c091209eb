// matrices.cpp: choice, memory and filling of packed matrices.

#include "model/matrices.h"

#include <algorithm>
#include <map>
#include <system_error>
#include <thread>
#include <unistd.h>

#include "base/error.h"
#include "kernels/choice.h"
#include "kernels/isa.h"
#include "kernels/matmul.h"

namespace lazygguf {
namespace {

// Copies may take so much of the machine's memory. What is mapped can be dropped and read again; copies cannot.
constexpr double MAX_SHARE = 0.75;

size_t most_memory() {
    const long n_pages = sysconf(_SC_PHYS_PAGES);
    const long page_size = sysconf(_SC_PAGESIZE);
    const double n_bytes =
        n_pages > 0 && page_size > 0 ? static_cast<double>(n_pages) * static_cast<double>(page_size) : 0;
    return static_cast<size_t>(MAX_SHARE * n_bytes);
}

} // namespace

packed_matrices::packed_matrices(weight_mode mode) : mode_(mode), budget_(most_memory()) {}

bool packed_matrices::takes(ggml_type type, int64_t n_in, int64_t n_out) const {
    return mode_ == weight_mode::fast && is_ours(type) && has_matmul(type, n_in, n_out) &&
           packed_matrix_size(type, n_in, n_out) <= budget_;
}

void packed_matrices::add(const ggml_tensor * matrix, size_t offset) {
    budget_ -= packed_matrix_size(matrix->type, matrix->ne[0], matrix->ne[1]);
    of_[matrix] = matrices_.size();
    matrices_.push_back({matrix->type, matrix->ne[0], matrix->ne[1], offset, nullptr});
}

const packed_matrix * packed_matrices::of(const ggml_tensor * matrix) const {
    const auto it = of_.find(matrix);
    return it == of_.end() ? nullptr : &matrices_[it->second];
}

void packed_matrices::load(const mapped_file & map) {
    if (matrices_.empty()) {
        return;
    }
    ctx_ = make_tensor_context(matrices_.size());
    size_t n_all = 0;
    for (packed_matrix & packed : matrices_) {
        const size_t n_bytes = packed_matrix_size(packed.type, packed.n_in, packed.n_out);
        packed.data = ggml_new_tensor_1d(ctx_.get(), GGML_TYPE_I8, static_cast<int64_t>(n_bytes));
        n_all += n_bytes;
    }
    buffer_.reset(ggml_backend_alloc_ctx_tensors_from_buft(ctx_.get(), ggml_backend_cpu_buffer_type()));
    if (!buffer_) {
        fail(status::no_memory,
             format("cannot allocate %zu bytes for weights; weights='as-is' maps most of them from the file", n_all));
    }
    ggml_backend_buffer_set_usage(buffer_.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    const int n_threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    for (const packed_matrix & m : matrices_) {
        const auto pack = [&](int i) {
            pack_matrix(m.type, m.n_in, m.n_out, map.data() + m.offset, static_cast<char *>(m.data->data), i,
                        n_threads);
        };
        std::vector<std::thread> threads;
        threads.reserve(static_cast<size_t>(n_threads));
        int part = 1;
        try {
            for (; part < n_threads; ++part) {
                threads.emplace_back(pack, part);
            }
        } catch (const std::system_error &) { // no room for a thread: its part and those behind it are packed here
        }
        for (; part < n_threads; ++part) {
            pack(part);
        }
        pack(0);
        for (std::thread & thread : threads) {
            thread.join();
        }
        map.drop(m.offset, ggml_row_size(m.type, m.n_in) * static_cast<size_t>(m.n_out));
    }
}

std::string packed_matrices::describe() const {
    std::map<std::string, size_t> bytes;
    for (const packed_matrix & packed : matrices_) {
        bytes[ggml_type_name(packed.type)] += packed_matrix_size(packed.type, packed.n_in, packed.n_out);
    }
    std::string text;
    for (const auto & [type, n] : bytes) {
        text += format("%s%s by our %s kernels %.1f MiB", text.empty() ? "" : ", ", type.c_str(), isa_name().c_str(),
                       static_cast<double>(n) / 1048576.0);
    }
    return text;
}

} // namespace lazygguf
