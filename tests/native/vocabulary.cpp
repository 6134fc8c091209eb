// vocabulary.cpp: which vocabularies are refused, and in which words. Values only: no file holds such a vocabulary.

#include "base/error.h"
#include "check.h"
#include "file/vocab_rules.h"

namespace lazygguf {
namespace {

constexpr int N_VOCAB = 260;

// What a 'llama' tokenizer needs: three special tokens, 256 bytes and a letter.
vocab_values pieces() {
    vocab_values vocab;
    vocab.model = "llama";
    vocab.tokens = {"<unk>", "<s>", "</s>"};
    for (int byte = 0; byte < 256; ++byte) {
        vocab.tokens.push_back(format("<0x%02X>", byte));
    }
    vocab.tokens.emplace_back("a");
    vocab.n_scores = vocab.tokens.size();
    vocab.types.emplace(vocab.tokens.size(), 6);
    for (const int i : {0, 1, 2, 259}) {
        (*vocab.types)[static_cast<size_t>(i)] = 1;
    }
    return vocab;
}

vocab_values byte_level(size_t n_tokens = N_VOCAB) {
    vocab_values vocab;
    vocab.model = "gpt2";
    for (size_t j = 0; j < n_tokens; ++j) {
        vocab.tokens.push_back("t" + std::to_string(j));
    }
    vocab.has_merges = true;
    return vocab;
}

// The refusal's message, and its kind; "" where the vocabulary is good.
std::string refusal(const vocab_values & vocab, int n_vocab = N_VOCAB) {
    try {
        check_vocab_values("m.gguf", vocab, n_vocab);
    } catch (const error & refused) {
        return (refused.code == status::bad_file ? "bad file " : "unsupported ") + std::string(refused.what());
    }
    return "";
}

// The same with one token in place of another.
std::string refusal_of(vocab_values vocab, size_t id, const std::string & token) {
    vocab.tokens[id] = token;
    return refusal(vocab);
}

CASE("a whole vocabulary is good, with and without scores and types") {
    CHECK_EQ(refusal(pieces()), "");
    CHECK_EQ(refusal(byte_level()), "");
    vocab_values vocab = pieces();
    vocab.n_scores.reset();
    vocab.types.reset();
    CHECK_EQ(refusal(vocab), "");
}

CASE("a vocabulary has as many tokens as the model has rows") {
    CHECK_EQ(refusal(pieces(), 261),
             "bad file m.gguf: the vocabulary has 260 tokens, but token_embd.weight has 261 rows");
    CHECK_EQ(refusal(pieces(), 259),
             "bad file m.gguf: the vocabulary has 260 tokens, but token_embd.weight has 259 rows");
    CHECK_EQ(refusal(byte_level(0)),
             "bad file m.gguf: the vocabulary has 0 tokens, but token_embd.weight has 260 rows");
}

CASE("a vocabulary holds the ids that stand for BOS and EOS where the file names none") {
    for (const int n : {0, 1, 5, 11}) {
        CHECK_EQ(refusal(byte_level(static_cast<size_t>(n)), n),
                 format("bad file m.gguf: the vocabulary has %d tokens, expected at least 12", n));
    }
    CHECK_EQ(refusal(byte_level(12), 12), "");
}

CASE("no token stands twice") {
    CHECK_EQ(refusal_of(byte_level(), 7, "t6"), "bad file m.gguf: token 7 ('t6') stands twice in the vocabulary");
    CHECK_EQ(refusal_of(pieces(), 258, "a"), "bad file m.gguf: token 259 ('a') stands twice in the vocabulary");
    CHECK_EQ(refusal_of(byte_level(), 6, std::string(100, 'x')), "");
}

CASE("an empty token has a name that no other token may have") {
    CHECK_EQ(refusal_of(byte_level(), 7, ""), "");
    vocab_values vocab = byte_level();
    vocab.tokens[7] = "";
    CHECK_EQ(refusal_of(vocab, 9, "[EMPTY_7]"),
             "bad file m.gguf: token 9 ('[EMPTY_7]') stands twice in the vocabulary");
    CHECK_EQ(refusal_of(vocab, 9, "[EMPTY_8]"), "");
    CHECK_EQ(refusal_of(vocab, 9, ""), "");
}

CASE("a SentencePiece vocabulary has a token for each byte") {
    vocab_values vocab = pieces();
    vocab.types.reset();
    CHECK_EQ(
        refusal_of(vocab, 13, "<newline>"),
        "bad file m.gguf: the vocabulary has no token '<0x0A>', expected one for each byte, since its tokenizer is "
        "'llama'; convert the model again");
    CHECK_EQ(refusal_of(vocab, 13, "\n"), ""); // the byte itself is one
}

CASE("a token of type byte says which") {
    vocab_values vocab = pieces();
    vocab.types->back() = 6;
    CHECK_EQ(refusal(vocab), "bad file m.gguf: token 259 ('a') is of type byte, expected a text like '<0x41>'");
}

CASE("scores and types are one for each token") {
    for (const size_t n : {size_t(0), size_t(259), size_t(261)}) {
        vocab_values vocab = pieces();
        vocab.n_scores = n;
        CHECK_EQ(refusal(vocab), format("bad file m.gguf: key 'tokenizer.ggml.scores' has %zu elements, expected one "
                                        "for each of 260 tokens",
                                        n));
        vocab = pieces();
        vocab.types->resize(n);
        CHECK_EQ(refusal(vocab), format("bad file m.gguf: key 'tokenizer.ggml.token_type' has %zu elements, expected "
                                        "one for each of 260 tokens",
                                        n));
    }
}

CASE("a byte-level vocabulary has merges, and a pre-tokenizer of its kind") {
    vocab_values vocab = byte_level();
    vocab.pre = "qwen2";
    CHECK_EQ(refusal(vocab), "");
    vocab.pre = "whitespace";
    CHECK_EQ(refusal(vocab), "unsupported m.gguf: pre-tokenizer 'whitespace' is not supported");
    vocab.has_merges = false;
    CHECK_EQ(refusal(vocab), "bad file m.gguf: key 'tokenizer.ggml.merges' is missing, which a 'gpt2' tokenizer needs");
}

CASE("two kinds of tokenizer run") {
    for (const char * kind : {"none", "no_vocab", "bert", "t5", "rwkv", "plamo2", "x", ""}) {
        std::string said;
        try {
            check_tokenizer("m.gguf", kind);
        } catch (const error & refused) {
            said = refused.code == status::unsupported ? refused.what() : "another kind of error";
        }
        CHECK_EQ(
            said,
            format("m.gguf: tokenizer '%s'; supported are 'llama' (SentencePiece) and 'gpt2' (byte-level BPE)", kind));
    }
    check_tokenizer("m.gguf", "llama");
    check_tokenizer("m.gguf", "gpt2");
}

} // namespace
} // namespace lazygguf
