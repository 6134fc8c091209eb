// vocab.cpp: the checks of the tokenizer.ggml.* keys.

#include "file/vocab.h"

#include <string>
#include <unordered_set>

#include "base/error.h"

namespace lazygguf {
namespace {

// llama.cpp's default ids of BOS and EOS are 1, 2 or 11; where they are not in the vocabulary, it ends the process.
constexpr size_t MIN_TOKENS = 12;

// Returns the tokens' texts.
std::unordered_set<std::string> check_tokens(const gguf_file & file, int n_vocab) {
    const int64_t i = file.find_array("tokenizer.ggml.tokens", GGUF_TYPE_STRING);
    if (i < 0) {
        fail(status::bad_file, format("%s: key 'tokenizer.ggml.tokens' is missing", file.path().c_str()));
    }
    const size_t n = gguf_get_arr_n(file.gguf(), i);
    if (n != static_cast<size_t>(n_vocab)) {
        fail(status::bad_file, format("%s: the vocabulary has %zu tokens, but token_embd.weight has %d rows",
                                      file.path().c_str(), n, n_vocab));
    }
    if (n < MIN_TOKENS) {
        fail(status::bad_file,
             format("%s: the vocabulary has %zu tokens, expected at least %zu", file.path().c_str(), n, MIN_TOKENS));
    }
    std::unordered_set<std::string> seen;
    seen.reserve(n);
    for (size_t j = 0; j < n; ++j) {
        std::string token = gguf_get_arr_str(file.gguf(), i, j);
        if (token.empty()) {
            token = "[EMPTY_" + std::to_string(j) + "]"; // as llama.cpp names it
        }
        if (!seen.insert(token).second) {
            fail(status::bad_file, format("%s: token %zu ('%.64s') stands twice in the vocabulary", file.path().c_str(),
                                          j, token.c_str()));
        }
    }
    return seen;
}

// SentencePiece falls back to bytes: text of a byte that has no token would be an exception in llama.cpp, which
// ends the process.
void check_bytes(const gguf_file & file, const std::unordered_set<std::string> & tokens) {
    for (int byte = 0; byte < 256; ++byte) {
        if (tokens.count(format("<0x%02X>", byte)) == 0 && tokens.count(std::string(1, static_cast<char>(byte))) == 0) {
            fail(
                status::bad_file,
                format("%s: the vocabulary has no token '<0x%02X>', expected one for each byte, since its tokenizer is "
                       "'llama'; convert the model again",
                       file.path().c_str(), byte));
        }
    }
}

// The byte of a token of type BYTE is read from its text, "<0x41>".
void check_byte_tokens(const gguf_file & file) {
    constexpr int32_t TYPE_BYTE = 6;
    const int64_t i = file.find("tokenizer.ggml.token_type");
    const int64_t i_tokens = file.find("tokenizer.ggml.tokens");
    const size_t n = i < 0 ? 0 : gguf_get_arr_n(file.gguf(), i);
    for (size_t j = 0; j < n; ++j) {
        const std::string token = gguf_get_arr_str(file.gguf(), i_tokens, j);
        const bool is_byte = token.size() == 6 && token.compare(0, 3, "<0x") == 0 && token[5] == '>';
        if (file.integer(i, static_cast<int64_t>(j)) == TYPE_BYTE && !is_byte) {
            fail(status::bad_file, format("%s: token %zu ('%.64s') is of type byte, expected a text like '<0x41>'",
                                          file.path().c_str(), j, token.c_str()));
        }
    }
}

void check_length(const gguf_file & file, const char * key, gguf_type element, int n_vocab) {
    const int64_t i = file.find_array(key, element);
    if (i >= 0 && gguf_get_arr_n(file.gguf(), i) != static_cast<size_t>(n_vocab)) {
        fail(status::bad_file, format("%s: key '%s' has %zu elements, expected one for each of %d tokens",
                                      file.path().c_str(), key, gguf_get_arr_n(file.gguf(), i), n_vocab));
    }
}

void check_type(const gguf_file & file, const char * key, gguf_type expected) {
    const int64_t i = file.find(key);
    if (i >= 0 && gguf_get_kv_type(file.gguf(), i) != expected) {
        fail(status::bad_file, format("%s: key '%s' is of type %s, expected %s", file.path().c_str(), key,
                                      gguf_type_name(gguf_get_kv_type(file.gguf(), i)), gguf_type_name(expected)));
    }
}

} // namespace

void check_vocab(const gguf_file & file, int n_vocab) {
    const std::string model = file.get_str("tokenizer.ggml.model");
    if (model != "llama" && model != "gpt2") {
        fail(status::unsupported,
             format("%s: tokenizer '%s'; supported are 'llama' (SentencePiece) and 'gpt2' (byte-level BPE)",
                    file.path().c_str(), model.c_str()));
    }
    const std::unordered_set<std::string> tokens = check_tokens(file, n_vocab);
    check_length(file, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, n_vocab);
    check_length(file, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, n_vocab);
    check_byte_tokens(file);
    if (model == "llama") {
        check_bytes(file, tokens);
    } else if (file.find_array("tokenizer.ggml.merges", GGUF_TYPE_STRING) < 0) {
        fail(status::bad_file, format("%s: key 'tokenizer.ggml.merges' is missing, which a '%s' tokenizer needs",
                                      file.path().c_str(), model.c_str()));
    }
    // types only: llama.cpp itself drops an id that is out of range, but reads no other type
    for (const char * name : {"bos", "eos", "eot", "unknown", "padding"}) {
        check_type(file, format("tokenizer.ggml.%s_token_id", name).c_str(), GGUF_TYPE_UINT32);
    }
    for (const char * name : {"add_bos_token", "add_eos_token", "add_space_prefix"}) {
        check_type(file, format("tokenizer.ggml.%s", name).c_str(), GGUF_TYPE_BOOL);
    }
    if (file.get_str("tokenizer.ggml.pre", "") == "whitespace") { // llama.cpp ends the process at the first space
        fail(status::unsupported, format("%s: pre-tokenizer 'whitespace' is not supported", file.path().c_str()));
    }
}

} // namespace lazygguf
