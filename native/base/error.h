// error.h: the one exception type of the native core.
//
// Owns how a failure travels from where it is noticed to the C boundary: a status and one line of text.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <stdexcept>
#include <string>

#include "base/status.h"

namespace lazygguf {

struct error : std::runtime_error {
    status code;
    error(status what, const std::string & message) : std::runtime_error(message), code(what) {}
};

#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
inline std::string format(const char * fmt, ...) {
    va_list args;
    va_start(args, fmt);
    va_list again;
    va_copy(again, args);
    const int size = std::vsnprintf(nullptr, 0, fmt, args);
    va_end(args);
    std::string text(size > 0 ? static_cast<size_t>(size) : 0, '\0');
    std::vsnprintf(&text[0], text.size() + 1, fmt, again);
    va_end(again);
    return text;
}

[[noreturn]] inline void fail(status code, const std::string & message) { throw error(code, message); }

} // namespace lazygguf
