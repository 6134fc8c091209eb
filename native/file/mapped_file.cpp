// mapped_file.cpp: mmap of model files (POSIX).

#include "file/mapped_file.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

namespace lazygguf {

mapped_file::mapped_file(const std::string & path, size_t size) : size_(size) {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        fail(status::bad_file, format("%s: cannot be opened: %s", path.c_str(), std::strerror(errno)));
    }
    struct stat info = {};
    const bool whole = fstat(fd, &info) == 0 && static_cast<size_t>(info.st_size) >= size;
    void * data = whole ? mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    const int cause = errno;
    close(fd);
    if (!whole) {
        fail(status::bad_file, format("%s: file is incomplete: need %zu bytes, have %lld", path.c_str(), size,
                                      static_cast<long long>(info.st_size)));
    }
    if (data == MAP_FAILED) {
        fail(status::no_memory, format("%s: cannot be mapped: %s", path.c_str(), std::strerror(cause)));
    }
    data_ = static_cast<char *>(data);
}

mapped_file::~mapped_file() { munmap(data_, size_); }

void mapped_file::drop(size_t offset, size_t n_bytes) const {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t begin = (offset + page - 1) / page * page; // whole pages inside the range only
    const size_t end = (offset + n_bytes) / page * page;
    if (end > begin) {
        madvise(data_ + begin, end - begin, MADV_DONTNEED); // advice: a failure changes nothing
    }
}

} // namespace lazygguf
