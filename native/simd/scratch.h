// scratch.h: memory that a thread keeps between the jobs of a kernel.
#pragma once

#include <cstddef>
#include <new>

namespace lazygguf::LAZY_ISA {

// Numbers that begin at a cache line: a vector across two lines is loaded and stored twice. Not initialised.
template <typename T> class scratch {
  public:
    scratch() = default;
    scratch(const scratch &) = delete;
    scratch & operator=(const scratch &) = delete;
    ~scratch() { release(); }

    // Room for n numbers; what was in it is lost if it grows.
    T * reserve(size_t n) {
        if (n > size_) {
            release();
            data_ = static_cast<T *>(::operator new(n * sizeof(T), LINE));
            size_ = n;
        }
        return data_;
    }

  private:
    static constexpr std::align_val_t LINE{64};

    T * data_ = nullptr;
    size_t size_ = 0;

    void release() {
        ::operator delete(data_, LINE);
        data_ = nullptr;
        size_ = 0;
    }
};

} // namespace lazygguf::LAZY_ISA
