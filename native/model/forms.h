// forms.h: how a layer's matrices are multiplied with many rows at once.
//
// The layout that is fastest for one row is often slow for many: on x86 ggml's Q4_1 kernel reaches a seventh of what
// ours does on the same bytes. Owns which matrix gets which kernel and, where that kernel wants another form of it, the
// form's memory and filling. No form is less exact than the file's own: 16-bit floats round weights and rows less than
// the 8-bit rows that every quantized kernel multiplies with.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include <ggml-cpp.h>

#include "file/mapped_file.h"
#include "kernels/kernel_speed.h"

namespace lazygguf {

// In which form the layers' matrices on the CPU are multiplied with when a prompt is read.
enum class weight_mode {
    as_is,        // the file's, by ggml's kernels
    fast,         // the form that is measured to be the fastest here
    force_bf16,   // every quantized matrix as BF16; for tests
    force_matmul, // every quantized matrix by our kernel, where there is one; for tests
};

// May so many bytes of weights be held a second time? A quarter of the machine's memory is given to that.
bool may_hold_twice(size_t n_bytes);

class weight_forms {
  public:
    // The row counts at which a form for more rows may take over, ascending: the file's bytes by our kernel as soon as
    // there are two rows; 16-bit copies soon after, since no row is quantized for them; ggml's kernels for batches
    // last.
    static constexpr int64_t LEVELS[] = {2, 4, 16};

    // Measures nothing and adds nothing with weight_mode::as_is.
    weight_forms(ggml_backend_dev_t cpu_dev, weight_mode mode);

    // A matrix of the file in the buffer type it has for few rows: chooses how it is multiplied with more.
    void add(ggml_tensor * small, ggml_backend_buffer_type_t small_buft, size_t offset);
    // What stands for a matrix where so many rows are multiplied: its second form or itself.
    ggml_tensor * at(ggml_tensor * small, int64_t n_rows) const;
    // Are so many rows multiplied with this form of a matrix by our kernel?
    bool is_ours(const ggml_tensor * weights, int64_t n_rows) const {
        const auto it = ours_.find(weights);
        return it != ours_.end() && n_rows >= it->second;
    }
    // Is this part of the file used as it lies?
    bool maps(const ggml_tensor * small) const;
    // Gives memory to the second forms and fills them from the file; `map_plain` lets them point into it.
    void load(const mapped_file & map, bool map_plain);

    std::string describe() const; // "Q5_0 as BF16 684.2 MiB", "" for none

  private:
    // How a kind of matrix is multiplied best with many rows: none better, the file's bytes by our kernel or by ggml's
    // for plain buffers, or a copy in another type.
    struct choice {
        std::optional<ggml_type> type; // of the form, in a plain buffer; none: as with few rows
        bool is_ours = false;
        bool is_ours_for_one = false; // even one row is multiplied faster by our kernel
    };
    struct form {
        const ggml_tensor * small;
        ggml_tensor * large;
        size_t offset;    // of the matrix in the file
        int64_t min_rows; // from so many rows on

        bool is_copy() const { return large->type == small->type; }
    };

    ggml_backend_dev_t dev_;
    ggml_backend_buffer_type_t plain_;
    weight_mode mode_;
    size_t budget_; // bytes that may still be taken
    std::vector<form> forms_;
    std::unordered_map<const ggml_tensor *, size_t> of_; // where in forms_ a matrix has its second form
    std::map<const ggml_tensor *, int64_t> ours_;        // from how many rows on
    std::map<ggml_type, size_t> ours_bytes_;
    std::map<std::pair<ggml_type, ggml_backend_buffer_type_t>, choice> chosen_;
    std::vector<ggml_context_ptr> ctxs_;
    std::vector<ggml_backend_buffer_ptr> buffers_;

    choice choose(const ggml_tensor * small, ggml_backend_buffer_type_t buft);
    choice fastest(const kernel & small) const;
    ggml_tensor * new_form(const ggml_tensor * small, ggml_type type, size_t offset, int64_t min_rows);
    void convert(const form & f, const char * data) const;
};

} // namespace lazygguf
