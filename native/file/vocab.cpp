// vocab.cpp: reads the tokenizer.ggml.* keys.

#include "file/vocab.h"

#include <string>

#include "base/error.h"
#include "file/vocab_rules.h"

namespace lazygguf {
namespace {

constexpr const char * TOKENS = "tokenizer.ggml.tokens";

std::vector<std::string> read_tokens(const gguf_file & file) {
    const int64_t i = file.find_array(TOKENS, GGUF_TYPE_STRING);
    if (i < 0) {
        fail(status::bad_file, format("%s: key '%s' is missing", file.path().c_str(), TOKENS));
    }
    std::vector<std::string> tokens(gguf_get_arr_n(file.gguf(), i));
    for (size_t j = 0; j < tokens.size(); ++j) {
        tokens[j] = gguf_get_arr_str(file.gguf(), i, j);
    }
    return tokens;
}

vocab_values read_values(const gguf_file & file, const std::string & model) {
    vocab_values vocab;
    vocab.model = model;
    vocab.tokens = read_tokens(file);
    const int64_t i_scores = file.find_array("tokenizer.ggml.scores", GGUF_TYPE_FLOAT32);
    if (i_scores >= 0) {
        vocab.n_scores = gguf_get_arr_n(file.gguf(), i_scores);
    }
    const int64_t i_types = file.find_array("tokenizer.ggml.token_type", GGUF_TYPE_INT32);
    if (i_types >= 0) {
        const auto * types = static_cast<const int32_t *>(gguf_get_arr_data(file.gguf(), i_types));
        vocab.types.emplace(types, types + gguf_get_arr_n(file.gguf(), i_types));
    }
    vocab.has_merges = model != "llama" && file.find_array("tokenizer.ggml.merges", GGUF_TYPE_STRING) >= 0;
    vocab.pre = file.get_str("tokenizer.ggml.pre", "");
    return vocab;
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
    check_tokenizer(file.path(), model);
    check_vocab_values(file.path(), read_values(file, model), n_vocab);
    // types only: llama.cpp itself drops an id that is out of range, but reads no other type
    for (const char * name : {"bos", "eos", "eot", "unknown", "padding"}) {
        check_type(file, format("tokenizer.ggml.%s_token_id", name).c_str(), GGUF_TYPE_UINT32);
    }
    for (const char * name : {"add_bos_token", "add_eos_token", "add_space_prefix"}) {
        check_type(file, format("tokenizer.ggml.%s", name).c_str(), GGUF_TYPE_BOOL);
    }
}

} // namespace lazygguf
