// context.h: a ggml context whose memory was asked for before.
//
// Owns what ggml_init does otherwise: where its own allocation fails, it ends the process.
#pragma once

#include <ggml.h>

#include <cstddef>
#include <memory>

namespace lazygguf {

struct free_context {
    void operator()(ggml_context * ctx) const;
};
using context_ptr = std::unique_ptr<ggml_context, free_context>;

// Fails with no_memory where so many bytes cannot be had now. For what ggml allocates next without asking whether it
// got it.
void check_room(size_t n_bytes, const char * what);

// A context for descriptions of tensors and graphs (no_alloc). Fails with no_memory where there is no room for n_bytes.
context_ptr make_context(size_t n_bytes);

// The same, for so many tensors.
context_ptr make_tensor_context(size_t n_tensors);

} // namespace lazygguf
