// boundary.cpp: core errors as codes of the C interface.

#include "api/boundary.h"

#include <algorithm>
#include <new>
#include <string>

#include "base/error.h"

namespace lazygguf {
namespace {

thread_local std::string last_error;

lazy_status code_of(status code) {
    switch (code) {
        case status::invalid_argument: return LAZY_STATUS_INVALID_ARGUMENT;
        case status::bad_file: return LAZY_STATUS_BAD_FILE;
        case status::unsupported: return LAZY_STATUS_UNSUPPORTED;
        case status::context_full: return LAZY_STATUS_CONTEXT_FULL;
        case status::no_memory: return LAZY_STATUS_NO_MEMORY;
        case status::cancelled: return LAZY_STATUS_CANCELLED;
        case status::failed: break;
    }
    return LAZY_STATUS_FAILED;
}

} // namespace

lazy_status failed(lazy_status code, const char * message) noexcept {
    try {
        last_error = message;
        std::replace_if(
            last_error.begin(), last_error.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; }, ' ');
    } catch (...) {
        last_error.clear();
    }
    return code;
}

lazy_status failed_with_current() noexcept {
    try {
        throw;
    } catch (const error & e) {
        return failed(code_of(e.code), e.what());
    } catch (const std::bad_alloc &) {
        return failed(LAZY_STATUS_NO_MEMORY, "out of memory");
    } catch (const std::exception & e) {
        return failed(LAZY_STATUS_FAILED, e.what());
    } catch (...) {
        return failed(LAZY_STATUS_FAILED, "unknown failure");
    }
}

} // namespace lazygguf

extern "C" {

const char * lazy_last_error(void) { return lazygguf::last_error.c_str(); }

} // extern "C"
