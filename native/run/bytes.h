// bytes.h: numbers and lists of numbers as bytes, and back.
//
// Owns the encoding, little-endian as the machines that this library runs on, and that no read goes past the end: a
// list's length is held against the bytes that are left before memory is taken for it. What the numbers mean and
// whether they fit is for who reads them.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>
#include <vector>

#include "base/error.h"

namespace lazygguf {

// Takes n bytes, or gives n bytes; what they throw ends the call that uses them.
using byte_sink = std::function<void(const void * data, size_t n)>;
using byte_source = std::function<void(void * out, size_t n)>;

class byte_writer {
  public:
    template <typename T> void number(T value) { append(&value, sizeof(T)); }
    // How many, then each.
    template <typename T> void list(const std::vector<T> & values) {
        number(static_cast<uint32_t>(values.size()));
        values_of(values);
    }
    // Each, where the reader knows how many.
    template <typename T> void values_of(const std::vector<T> & values) {
        static_assert(std::is_arithmetic_v<T>, "only numbers have bytes that mean the same elsewhere");
        append(values.data(), values.size() * sizeof(T));
    }
    const std::vector<char> & bytes() const { return bytes_; }

  private:
    std::vector<char> bytes_;

    void append(const void * data, size_t n) {
        const auto * begin = static_cast<const char *>(data);
        bytes_.insert(bytes_.end(), begin, begin + n);
    }
};

class byte_reader {
  public:
    // `bytes` outlive it.
    explicit byte_reader(const std::vector<char> & bytes) : at_(bytes.data()), n_left_(bytes.size()) {}

    template <typename T> T number() {
        T value;
        take(&value, 1, sizeof(T));
        return value;
    }
    template <typename T> std::vector<T> list() { return values<T>(number<uint32_t>()); }
    template <typename T> std::vector<T> values(size_t n) {
        static_assert(std::is_arithmetic_v<T>, "only numbers have bytes that mean the same elsewhere");
        check_left(n, sizeof(T));
        std::vector<T> out(n);
        take(out.data(), n, sizeof(T));
        return out;
    }
    size_t n_left() const { return n_left_; }

  private:
    const char * at_;
    size_t n_left_;

    void check_left(size_t n, size_t size) const {
        if (n > n_left_ / size) {
            fail(status::bad_file,
                 format("the saved session ends early: %zu bytes are left for %zu values", n_left_, n));
        }
    }
    void take(void * out, size_t n, size_t size) {
        check_left(n, size);
        if (n > 0) { // memcpy wants no null pointers
            std::memcpy(out, at_, n * size);
        }
        at_ += n * size;
        n_left_ -= n * size;
    }
};

} // namespace lazygguf
