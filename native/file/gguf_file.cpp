// gguf_file.cpp: opening and checking of GGUF containers.

#include "file/gguf_file.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>

#include "base/error.h"

namespace lazygguf {
namespace {

struct file_closer {
    void operator()(std::FILE * f) const { std::fclose(f); }
};
using file_ptr = std::unique_ptr<std::FILE, file_closer>;

// While it lives, what ggml logs is kept instead of printed: the reader's last complaint is the cause we report.
class log_capture {
  public:
    log_capture() : lock_(mutex()) {
        ggml_log_get(&previous_, &previous_data_);
        ggml_log_set(&log_capture::on_log, this);
    }
    ~log_capture() { ggml_log_set(previous_, previous_data_); }
    log_capture(const log_capture &) = delete;
    log_capture & operator=(const log_capture &) = delete;

    std::string cause() const { return first_error_.empty() ? "unreadable header" : first_error_; }

  private:
    std::lock_guard<std::mutex> lock_;
    ggml_log_callback previous_ = nullptr;
    void * previous_data_ = nullptr;
    std::string first_error_;

    static std::mutex & mutex() {
        static std::mutex m;
        return m;
    }
    static void on_log(ggml_log_level level, const char * text, void * data) {
        auto * self = static_cast<log_capture *>(data);
        if (level != GGML_LOG_LEVEL_ERROR || !self->first_error_.empty()) {
            return;
        }
        std::string line(text);
        const size_t name_end = line.find("(): "); // ggml prefixes some lines with its function's name
        const size_t colon = line.find(": ");
        if (name_end != std::string::npos) {
            line.erase(0, name_end + 4);
        } else if (colon != std::string::npos && line.compare(0, 5, "gguf_") == 0) {
            line.erase(0, colon + 2);
        }
        while (!line.empty() && (line.back() == '\n' || line.back() == ' ')) {
            line.pop_back();
        }
        self->first_error_ = line;
    }
};

std::string looks_like(const unsigned char * head, size_t n) {
    const std::string text(reinterpret_cast<const char *>(head), n);
    if (n == 0) {
        return "the file is empty";
    }
    if (text.compare(0, 4, "lmgg") == 0 || text.compare(0, 4, "tjgg") == 0 || text.compare(0, 4, "fmgg") == 0) {
        return "this is an old GGML/GGJT file; convert the original checkpoint to GGUF again";
    }
    if (text.compare(0, 7, "version") == 0) {
        return "this is a git-lfs pointer, not the model; run 'git lfs pull' or download the file itself";
    }
    if (text[0] == '<') {
        return "this looks like a web page saved in place of the model; download the file again";
    }
    if (text.compare(0, 2, "PK") == 0) {
        return "this is a zip archive (a PyTorch checkpoint?), not a GGUF file; convert it first";
    }
    return "the magic is not \"GGUF\"";
}

} // namespace

gguf_file::gguf_file(const std::string & path) : path_(path) {
    check_magic();
    {
        log_capture log;
        gguf_init_params params = {/*no_alloc=*/true, /*ctx=*/nullptr};
        gguf_.reset(gguf_init_from_file(path.c_str(), params));
        if (!gguf_) {
            fail(status::bad_file, format("%s: not a valid GGUF file, or not all of it: %s; download or convert it "
                                          "again",
                                          path.c_str(), log.cause().c_str()));
        }
    }
    check_tensors();
}

// Says what a file that is no GGUF looks like, before the reader is asked.
void gguf_file::check_magic() const {
    file_ptr file(std::fopen(path_.c_str(), "rb"));
    if (!file) {
        fail(status::bad_file, format("%s: cannot be opened: %s", path_.c_str(), std::strerror(errno)));
    }
    unsigned char head[24] = {};
    const size_t n = std::fread(head, 1, sizeof(head), file.get());
    if (n < 4 || std::memcmp(head, "GGUF", 4) != 0) {
        fail(status::bad_file, format("%s: not a GGUF file: %s", path_.c_str(), looks_like(head, n).c_str()));
    }
    if (n < sizeof(head)) {
        fail(status::bad_file, format("%s: file is incomplete: need 24 bytes of header, have %zu", path_.c_str(), n));
    }
    uint32_t version;
    std::memcpy(&version, head + 4, sizeof(version));
    if (version != 0 && (version & 0xffffU) == 0) {
        fail(status::bad_file,
             format("%s: this GGUF file is big-endian (version 0x%08x); convert the model for this machine",
                    path_.c_str(), version));
    }
    if (version < 2 || version > GGUF_VERSION) {
        fail(status::bad_file,
             format("%s: GGUF version is %u, expected 2 or 3; convert the model again", path_.c_str(), version));
    }
}

// The reader accepts a header whose tensors reach past the end of the file: mapped, that would be a SIGBUS.
void gguf_file::check_tensors() const {
    file_ptr file(std::fopen(path_.c_str(), "rb"));
    if (!file || fseeko(file.get(), 0, SEEK_END) != 0) {
        fail(status::bad_file, format("%s: cannot be read: %s", path_.c_str(), std::strerror(errno)));
    }
    const_cast<gguf_file *>(this)->size_ = static_cast<size_t>(ftello(file.get()));

    const int64_t n_tensors = gguf_get_n_tensors(gguf());
    const size_t begin = gguf_get_data_offset(gguf());
    size_t need = begin;
    for (int64_t i = 0; i < n_tensors; ++i) {
        const int64_t * ne = gguf_get_tensor_ne(gguf(), i);
        for (int d = 0; d < GGML_MAX_DIMS; ++d) {
            if (ne[d] < 1) {
                fail(status::bad_file,
                     format("%s: tensor '%s' has dimension %d of size %lld, expected at least 1", path_.c_str(),
                            gguf_get_tensor_name(gguf(), i), d, static_cast<long long>(ne[d])));
            }
        }
        // no overflow: the reader has summed the sizes, but not with where the data begins
        const size_t n_bytes = gguf_get_tensor_offset(gguf(), i) + gguf_get_tensor_size(gguf(), i);
        need = std::max(need, n_bytes > SIZE_MAX - begin ? SIZE_MAX : begin + n_bytes);
    }
    if (n_tensors > 0 && need > size_) {
        fail(status::bad_file, format("%s: file is incomplete: need %zu bytes, have %zu; download or copy it again",
                                      path_.c_str(), need, size_));
    }
    if (gguf_get_alignment(gguf()) > (1U << 20)) {
        fail(status::bad_file, format("%s: general.alignment is %zu, expected at most %u", path_.c_str(),
                                      gguf_get_alignment(gguf()), 1U << 20));
    }
}

size_t gguf_file::tensor_offset(int64_t i) const {
    return gguf_get_data_offset(gguf()) + gguf_get_tensor_offset(gguf(), i);
}

int64_t gguf_file::find(const std::string & key) const { return gguf_find_key(gguf(), key.c_str()); }

int64_t gguf_file::find_array(const std::string & key, gguf_type element) const {
    const int64_t i = find(key);
    if (i < 0) {
        return -1;
    }
    const bool is_array = gguf_get_kv_type(gguf(), i) == GGUF_TYPE_ARRAY;
    if (!is_array || gguf_get_arr_type(gguf(), i) != element) {
        fail(status::bad_file,
             format("%s: key '%s' is of type %s%s, expected an array of %s", path_.c_str(), key.c_str(),
                    is_array ? "array of " : "",
                    gguf_type_name(is_array ? gguf_get_arr_type(gguf(), i) : gguf_get_kv_type(gguf(), i)),
                    gguf_type_name(element)));
    }
    return i;
}

void gguf_file::missing(const std::string & key) const {
    fail(status::bad_file, format("%s: key '%s' is missing", path_.c_str(), key.c_str()));
}

const void * gguf_file::element(int64_t i, int64_t j, gguf_type & type) const {
    static const size_t sizes[GGUF_TYPE_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    type = gguf_get_kv_type(gguf(), i);
    const bool is_array = type == GGUF_TYPE_ARRAY;
    if (is_array) {
        type = gguf_get_arr_type(gguf(), i);
    }
    if (type == GGUF_TYPE_STRING || type == GGUF_TYPE_ARRAY) {
        fail(status::bad_file, format("%s: key '%s' is of type %s, expected a number", path_.c_str(),
                                      gguf_get_key(gguf(), i), gguf_type_name(type)));
    }
    const auto * data =
        static_cast<const char *>(is_array ? gguf_get_arr_data(gguf(), i) : gguf_get_val_data(gguf(), i));
    return data + sizes[type] * static_cast<size_t>(j);
}

namespace {

template <typename T> T load(const void * p) {
    T value;
    std::memcpy(&value, p, sizeof(value));
    return value;
}

template <typename R> R convert(const void * p, gguf_type type) {
    switch (type) {
        case GGUF_TYPE_UINT8: return static_cast<R>(load<uint8_t>(p));
        case GGUF_TYPE_INT8: return static_cast<R>(load<int8_t>(p));
        case GGUF_TYPE_UINT16: return static_cast<R>(load<uint16_t>(p));
        case GGUF_TYPE_INT16: return static_cast<R>(load<int16_t>(p));
        case GGUF_TYPE_UINT32: return static_cast<R>(load<uint32_t>(p));
        case GGUF_TYPE_INT32: return static_cast<R>(load<int32_t>(p));
        case GGUF_TYPE_FLOAT32: return static_cast<R>(load<float>(p));
        case GGUF_TYPE_BOOL: return static_cast<R>(load<int8_t>(p) != 0);
        case GGUF_TYPE_UINT64: return static_cast<R>(load<uint64_t>(p));
        case GGUF_TYPE_INT64: return static_cast<R>(load<int64_t>(p));
        case GGUF_TYPE_FLOAT64: return static_cast<R>(load<double>(p));
        default: return R{};
    }
}

} // namespace

double gguf_file::number(int64_t i, int64_t j) const {
    gguf_type type;
    const void * p = element(i, j, type);
    return convert<double>(p, type);
}

int64_t gguf_file::integer(int64_t i, int64_t j) const {
    gguf_type type;
    const void * p = element(i, j, type);
    if (type == GGUF_TYPE_FLOAT32 || type == GGUF_TYPE_FLOAT64) { // NaN and huge values have no integer
        const double value = convert<double>(p, type);
        return std::fabs(value) < 9.0e18 ? static_cast<int64_t>(value) : 0;
    }
    return convert<int64_t>(p, type);
}

uint32_t gguf_file::get_u32(const std::string & key) const {
    if (!has(key)) {
        missing(key);
    }
    return get_u32(key, 0);
}

uint32_t gguf_file::get_u32(const std::string & key, uint32_t fallback) const {
    const int64_t i = find(key);
    if (i < 0) {
        return fallback;
    }
    const gguf_type type = gguf_get_kv_type(gguf(), i);
    const bool is_integer = type <= GGUF_TYPE_INT32 || type == GGUF_TYPE_UINT64 || type == GGUF_TYPE_INT64;
    if (!is_integer) {
        fail(status::bad_file, format("%s: key '%s' is of type %s, expected a whole number", path_.c_str(), key.c_str(),
                                      gguf_type_name(type)));
    }
    const int64_t value = integer(i);
    if (value < 0 || value > INT32_MAX) {
        fail(status::bad_file, format("%s: key '%s' is %lld, expected a value in [0, 2147483647]", path_.c_str(),
                                      key.c_str(), static_cast<long long>(value)));
    }
    return static_cast<uint32_t>(value);
}

float gguf_file::get_f32(const std::string & key) const {
    if (!has(key)) {
        missing(key);
    }
    return get_f32(key, 0.0F);
}

float gguf_file::get_f32(const std::string & key, float fallback) const {
    const int64_t i = find(key);
    if (i < 0) {
        return fallback;
    }
    const gguf_type type = gguf_get_kv_type(gguf(), i);
    if (type != GGUF_TYPE_FLOAT32 && type != GGUF_TYPE_FLOAT64) {
        fail(status::bad_file,
             format("%s: key '%s' is of type %s, expected a float", path_.c_str(), key.c_str(), gguf_type_name(type)));
    }
    const double value = number(i);
    if (!std::isfinite(value)) {
        fail(status::bad_file, format("%s: key '%s' is not finite", path_.c_str(), key.c_str()));
    }
    return static_cast<float>(value);
}

std::string gguf_file::get_str(const std::string & key) const {
    if (!has(key)) {
        missing(key);
    }
    return get_str(key, "");
}

std::string gguf_file::get_str(const std::string & key, const std::string & fallback) const {
    const int64_t i = find(key);
    if (i < 0) {
        return fallback;
    }
    const gguf_type type = gguf_get_kv_type(gguf(), i);
    if (type != GGUF_TYPE_STRING) {
        fail(status::bad_file,
             format("%s: key '%s' is of type %s, expected a string", path_.c_str(), key.c_str(), gguf_type_name(type)));
    }
    return gguf_get_val_str(gguf(), i);
}

} // namespace lazygguf
