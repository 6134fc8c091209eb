// gguf_file.h: a GGUF container that has been opened and checked.
//
// Owns the file's metadata and the proof that every tensor lies inside the file. Knows nothing about models: what a
// key means is hparams' business. Every reader of an untrusted file comes through here.
#pragma once

#include <cstdint>
#include <string>

#include <ggml-cpp.h>

namespace lazygguf {

class gguf_file {
  public:
    explicit gguf_file(const std::string & path);

    const std::string & path() const { return path_; }
    size_t size() const { return size_; }
    const gguf_context * gguf() const { return gguf_.get(); }

    // Typed reads of key-value pairs. A missing key gives `fallback`, or fails where there is none; a value of the
    // wrong type or out of range always fails, naming the key (gguf_get_val_* would end the process).
    bool has(const std::string & key) const { return find(key) >= 0; }
    uint32_t get_u32(const std::string & key) const;
    uint32_t get_u32(const std::string & key, uint32_t fallback) const;
    float get_f32(const std::string & key) const;
    float get_f32(const std::string & key, float fallback) const;
    std::string get_str(const std::string & key) const;
    std::string get_str(const std::string & key, const std::string & fallback) const;

    int64_t find(const std::string & key) const;
    int64_t find_array(const std::string & key, gguf_type element) const; // -1: absent; fails on another type

    // Reads element j of value i as a number, whatever its stored type. Fails on strings.
    double number(int64_t i, int64_t j = 0) const;
    int64_t integer(int64_t i, int64_t j = 0) const;

    // Offset of tensor i from the start of the file, in bytes.
    size_t tensor_offset(int64_t i) const;

  private:
    std::string path_;
    size_t size_ = 0;
    gguf_context_ptr gguf_;

    void check_magic() const;
    void check_tensors() const;
    const void * element(int64_t i, int64_t j, gguf_type & type) const;
    void missing(const std::string & key) const;
};

} // namespace lazygguf
