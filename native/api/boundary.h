// boundary.h: how a failure of the core leaves it, as a status code and a message of this thread.
//
// Owns the rule that no exception leaves the library: the body of every call that can fail runs in guarded().
#pragma once

#include "api/lazygguf.h"

namespace lazygguf {

// Keeps the message for lazy_last_error, in one line whatever names it quotes from a file. Returns the code.
lazy_status failed(lazy_status code, const char * message) noexcept;

// The code of the exception that is being handled, whose message is kept.
lazy_status failed_with_current() noexcept;

template <typename F> lazy_status guarded(F && body) noexcept {
    try {
        body();
        return LAZY_STATUS_OK;
    } catch (...) {
        return failed_with_current();
    }
}

} // namespace lazygguf
