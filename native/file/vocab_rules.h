// vocab_rules.h: what a vocabulary must hold so that llama.cpp can load it and tokenize any text with it.
//
// Numbers and texts in, a refusal out: knows no file. What a file says of its vocabulary is read in vocab.cpp.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace lazygguf {

// A vocabulary as its file says it.
struct vocab_values {
    std::string model;                         // tokenizer.ggml.model
    std::string pre;                           // tokenizer.ggml.pre; may be empty
    std::vector<std::string> tokens;           // an id is a place in it
    std::optional<size_t> n_scores;            // elements of tokenizer.ggml.scores, where there are scores
    std::optional<std::vector<int32_t>> types; // tokenizer.ggml.token_type, where there are types
    bool has_merges = false;
};

// Fails with UNSUPPORTED unless it is a kind of tokenizer that runs.
void check_tokenizer(const std::string & path, const std::string & model);

// Fails with BAD_FILE or UNSUPPORTED unless the vocabulary has exactly n_vocab distinct tokens, and what its kind of
// tokenizer needs. Messages begin with `path`.
void check_vocab_values(const std::string & path, const vocab_values & vocab, int n_vocab);

} // namespace lazygguf
