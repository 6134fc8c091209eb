// large_weights.h: a second form of a layer's matrices, for many rows at once.
//
// A file's type is right for decode, where memory is read once per token, and often wrong for a prompt: on x86 a Q4_1
// kernel reaches a quarter of what BF16 does. Owns which matrix gets which second form, its memory and its filling.
// No form is less exact than the file's own: 16-bit floats round weights and rows less than the 8-bit rows that every
// quantized kernel multiplies with.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include <ggml-cpp.h>

#include "kernel_speed.h"
#include "lazygguf.h"
#include "mapped_file.h"

namespace lazygguf {

class large_weights {
  public:
    // From how many rows on a second form is the faster one: 16-bit copies soon, since no row is quantized for them;
    // the file's own bytes where ggml's kernel for batches begins.
    static constexpr int64_t COPIED_ROWS = 4;
    static constexpr int64_t MAPPED_ROWS = 16;

    // Measures nothing and adds nothing with LAZY_WEIGHTS_AS_IS.
    large_weights(ggml_backend_dev_t cpu_dev, lazy_weights mode);

    // A matrix of the file in the buffer type it has for few rows. Returns its second form, or itself.
    ggml_tensor * add(ggml_tensor * small, ggml_backend_buffer_type_t small_buft, size_t offset);
    // Is this part of the file used as it lies?
    bool maps(const ggml_tensor * small) const;
    // Gives memory to the second forms and fills them from the file; `map_plain` lets them point into it.
    void load(const mapped_file & map, bool map_plain);

    std::string describe() const; // "Q5_0 as BF16 684.2 MiB", "" for none

  private:
    struct form {
        const ggml_tensor * small;
        ggml_tensor * large;
        size_t offset; // of the matrix in the file

        bool is_copy() const { return large->type == small->type; }
    };

    ggml_backend_dev_t dev_;
    ggml_backend_buffer_type_t plain_;
    lazy_weights mode_;
    size_t budget_; // bytes that may still be taken
    std::vector<form> forms_;
    std::map<std::pair<ggml_type, ggml_backend_buffer_type_t>, std::optional<ggml_type>> chosen_;
    std::vector<ggml_context_ptr> ctxs_;
    std::vector<ggml_backend_buffer_ptr> buffers_;

    // The type of the second form in a plain buffer; none where nothing is worth its memory.
    std::optional<ggml_type> choose(const kernel & small);
    std::optional<ggml_type> fastest(const kernel & small) const;
    void convert(const form & f, const char * data) const;
};

} // namespace lazygguf
