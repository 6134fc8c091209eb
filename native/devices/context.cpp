// context.cpp: contexts in memory of our own.

#include "devices/context.h"

#include <cstdlib>

#include "base/error.h"

namespace lazygguf {
namespace {

void * allocate(size_t n_bytes, const char * what) {
    void * memory = std::malloc(n_bytes); // aligned for every type, which is what ggml asks of a context's
    if (memory == nullptr) {
        fail(status::no_memory, format("cannot allocate %zu bytes for %s", n_bytes, what));
    }
    return memory;
}

} // namespace

void free_context::operator()(ggml_context * ctx) const {
    void * memory = ggml_get_mem_buffer(ctx);
    ggml_free(ctx); // leaves memory that it was given
    std::free(memory);
}

void check_room(size_t n_bytes, const char * what) { std::free(allocate(n_bytes, what)); }

context_ptr make_context(size_t n_bytes) {
    return context_ptr(ggml_init({n_bytes, allocate(n_bytes, "a graph"), /*no_alloc=*/true}));
}

context_ptr make_tensor_context(size_t n_tensors) { return make_context(ggml_tensor_overhead() * n_tensors); }

} // namespace lazygguf
