// mapped_file.h: a file mapped read-only into memory.
#pragma once

#include <cstddef>
#include <string>

namespace lazygguf {

class mapped_file {
  public:
    // Fails with BAD_FILE where the file cannot be mapped or is shorter than `size` now (it changed after the check).
    mapped_file(const std::string & path, size_t size);
    ~mapped_file();
    mapped_file(const mapped_file &) = delete;
    mapped_file & operator=(const mapped_file &) = delete;

    char * data() const { return data_; }
    size_t size() const { return size_; }
    // Tells the system that these bytes are not read again, so that their pages need not stay in memory.
    void drop(size_t offset, size_t n_bytes) const;

  private:
    char * data_ = nullptr;
    size_t size_ = 0;
};

} // namespace lazygguf
