// vocab_rules.cpp: the rules of a vocabulary.

#include "file/vocab_rules.h"

#include <unordered_set>

#include "base/error.h"

namespace lazygguf {
namespace {

// The ids that llama.cpp takes for BOS and EOS where a file names none are below this.
constexpr size_t MIN_TOKENS = 12;
constexpr int32_t TYPE_BYTE = 6;

// Returns the tokens' texts.
std::unordered_set<std::string> check_tokens(const std::string & path, const vocab_values & vocab, int n_vocab) {
    const size_t n = vocab.tokens.size();
    if (n != static_cast<size_t>(n_vocab)) {
        fail(status::bad_file,
             format("%s: the vocabulary has %zu tokens, but token_embd.weight has %d rows", path.c_str(), n, n_vocab));
    }
    if (n < MIN_TOKENS) {
        fail(status::bad_file,
             format("%s: the vocabulary has %zu tokens, expected at least %zu", path.c_str(), n, MIN_TOKENS));
    }
    std::unordered_set<std::string> seen;
    seen.reserve(n);
    for (size_t j = 0; j < n; ++j) {
        std::string token = vocab.tokens[j];
        if (token.empty()) {
            token = "[EMPTY_" + std::to_string(j) + "]"; // as llama.cpp names it
        }
        if (!seen.insert(token).second) {
            fail(status::bad_file,
                 format("%s: token %zu ('%.64s') stands twice in the vocabulary", path.c_str(), j, token.c_str()));
        }
    }
    return seen;
}

void check_length(const std::string & path, const char * key, size_t n, int n_vocab) {
    if (n != static_cast<size_t>(n_vocab)) {
        fail(status::bad_file, format("%s: key '%s' has %zu elements, expected one for each of %d tokens", path.c_str(),
                                      key, n, n_vocab));
    }
}

// The byte of a token of type BYTE is read from its text, "<0x41>".
void check_byte_tokens(const std::string & path, const vocab_values & vocab) {
    for (size_t j = 0; vocab.types && j < vocab.types->size(); ++j) {
        const std::string & token = vocab.tokens[j];
        const bool is_byte = token.size() == 6 && token.compare(0, 3, "<0x") == 0 && token[5] == '>';
        if ((*vocab.types)[j] == TYPE_BYTE && !is_byte) {
            fail(status::bad_file, format("%s: token %zu ('%.64s') is of type byte, expected a text like '<0x41>'",
                                          path.c_str(), j, token.c_str()));
        }
    }
}

// SentencePiece falls back to bytes: each needs a token, or a text with that byte has no ids.
void check_bytes(const std::string & path, const std::unordered_set<std::string> & tokens) {
    for (int byte = 0; byte < 256; ++byte) {
        if (tokens.count(format("<0x%02X>", byte)) == 0 && tokens.count(std::string(1, static_cast<char>(byte))) == 0) {
            fail(
                status::bad_file,
                format("%s: the vocabulary has no token '<0x%02X>', expected one for each byte, since its tokenizer is "
                       "'llama'; convert the model again",
                       path.c_str(), byte));
        }
    }
}

} // namespace

void check_tokenizer(const std::string & path, const std::string & model) {
    if (model != "llama" && model != "gpt2") {
        fail(status::unsupported,
             format("%s: tokenizer '%s'; supported are 'llama' (SentencePiece) and 'gpt2' (byte-level BPE)",
                    path.c_str(), model.c_str()));
    }
}

void check_vocab_values(const std::string & path, const vocab_values & vocab, int n_vocab) {
    const std::unordered_set<std::string> tokens = check_tokens(path, vocab, n_vocab);
    if (vocab.n_scores) {
        check_length(path, "tokenizer.ggml.scores", *vocab.n_scores, n_vocab);
    }
    if (vocab.types) {
        check_length(path, "tokenizer.ggml.token_type", vocab.types->size(), n_vocab);
    }
    check_byte_tokens(path, vocab);
    if (vocab.model == "llama") {
        check_bytes(path, tokens);
    } else if (!vocab.has_merges) {
        fail(status::bad_file, format("%s: key 'tokenizer.ggml.merges' is missing, which a '%s' tokenizer needs",
                                      path.c_str(), vocab.model.c_str()));
    }
    if (vocab.pre == "whitespace") { // llama.cpp has it for another kind of vocabulary
        fail(status::unsupported, format("%s: pre-tokenizer 'whitespace' is not supported", path.c_str()));
    }
}

} // namespace lazygguf
