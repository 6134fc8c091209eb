// status.h: the kinds of failure that the native core knows.
//
// The C interface gives each a number of its own (api/lazygguf.h).
#pragma once

namespace lazygguf {

enum class status {
    invalid_argument, // a value the caller chose is out of range
    bad_file,         // not a whole, well-formed GGUF model
    unsupported,      // a well-formed model of a kind this library does not run
    context_full,     // the tokens do not fit into n_ctx
    no_memory,
    cancelled,
    failed, // the backend failed, or the weights gave NaN or Inf
};

} // namespace lazygguf
