// matrices.h: the layers' matrices on the CPU, as our kernels read them.
//
// Owns which matrices our kernels multiply with (every one whose type has a kernel, by kernels/choice.h) and the copies
// in the kernels' layout. One kernel serves one row and many, so that a result does not depend on how many rows were
// computed together. All other matrices are multiplied by ggml, from the bytes as they lie in the file.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include <ggml-cpp.h>

#include "devices/context.h"
#include "file/mapped_file.h"

namespace lazygguf {

// How the layers' matrices on the CPU are multiplied with.
enum class weight_mode {
    as_is, // by ggml's kernels, as llama.cpp does
    fast,  // by our kernels, where there are any
};

// A matrix [n_in, n_out] in the kernels' layout.
struct packed_matrix {
    ggml_type type;
    int64_t n_in;
    int64_t n_out;
    size_t offset;      // of the matrix in the file
    ggml_tensor * data; // I8, in host memory
};

class packed_matrices {
  public:
    explicit packed_matrices(weight_mode mode);

    weight_mode mode() const { return mode_; }
    // Is a matrix of this type and shape packed? Not where the machine's memory is too small for more: then it stays in
    // the file's layout, mapped.
    bool takes(ggml_type type, int64_t n_in, int64_t n_out) const;
    // Plans the copy of a matrix that takes() took.
    void add(const ggml_tensor * matrix, size_t offset);
    // Null where ggml multiplies with the matrix.
    const packed_matrix * of(const ggml_tensor * matrix) const;
    // Gives memory to the copies and fills them from the file, on every core.
    void load(const mapped_file & map);

    std::string describe() const; // "Q5_0 by our avx2 kernels 684.2 MiB", "" for none

  private:
    weight_mode mode_;
    size_t budget_;                       // bytes that may still be taken
    std::vector<packed_matrix> matrices_; // in the order of add()
    std::unordered_map<const ggml_tensor *, size_t> of_;
    context_ptr ctx_;
    ggml_backend_buffer_ptr buffer_;
};

} // namespace lazygguf
