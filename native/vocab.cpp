// vocab.cpp: the checks of the tokenizer.ggml.* keys.

#include "vocab.h"

#include <string>
#include <unordered_set>

#include "error.h"

namespace lazygguf {
namespace {

void check_tokens(const gguf_file & file, int n_vocab) {
    const int64_t i = file.find_array("tokenizer.ggml.tokens", GGUF_TYPE_STRING);
    if (i < 0) {
        fail(LAZY_STATUS_BAD_FILE, format("%s: key 'tokenizer.ggml.tokens' is missing", file.path().c_str()));
    }
    const size_t n = gguf_get_arr_n(file.gguf(), i);
    if (n != static_cast<size_t>(n_vocab)) {
        fail(LAZY_STATUS_BAD_FILE, format("%s: the vocabulary has %zu tokens, but token_embd.weight has %d rows",
                                          file.path().c_str(), n, n_vocab));
    }
    std::unordered_set<std::string> seen;
    seen.reserve(n);
    for (size_t j = 0; j < n; ++j) {
        if (!seen.insert(gguf_get_arr_str(file.gguf(), i, j)).second) {
            fail(LAZY_STATUS_BAD_FILE, format("%s: token %zu ('%.64s') stands twice in the vocabulary",
                                              file.path().c_str(), j, gguf_get_arr_str(file.gguf(), i, j)));
        }
    }
}

void check_length(const gguf_file & file, const char * key, gguf_type element, int n_vocab) {
    const int64_t i = file.find_array(key, element);
    if (i >= 0 && gguf_get_arr_n(file.gguf(), i) != static_cast<size_t>(n_vocab)) {
        fail(LAZY_STATUS_BAD_FILE, format("%s: key '%s' has %zu elements, expected one for each of %d tokens",
                                          file.path().c_str(), key, gguf_get_arr_n(file.gguf(), i), n_vocab));
    }
}

} // namespace

void check_vocab(const gguf_file & file, int n_vocab) {
    const std::string model = file.get_str("tokenizer.ggml.model");
    check_tokens(file, n_vocab);
    check_length(file, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, n_vocab);
    check_length(file, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, n_vocab);
    if (model == "gpt2" && file.find_array("tokenizer.ggml.merges", GGUF_TYPE_STRING) < 0) {
        fail(LAZY_STATUS_BAD_FILE, format("%s: key 'tokenizer.ggml.merges' is missing, which a '%s' tokenizer needs",
                                          file.path().c_str(), model.c_str()));
    }
    for (const char * key : {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"}) {
        file.get_u32(key, 0); // its type only: llama.cpp itself drops an id that is out of range
    }
    file.get_str("tokenizer.ggml.pre", "");
}

} // namespace lazygguf
