// vocab.h: checks the tokenizer's part of a GGUF file.
//
// Tokenizing itself is llama.cpp's, which counts on what it is given: a vocabulary is checked here first. The rules
// stand in vocab_rules.h, and are tested there without files.
#pragma once

#include "file/gguf_file.h"

namespace lazygguf {

// Fails with BAD_FILE unless the file holds a vocabulary of exactly n_vocab distinct tokens that llama.cpp can load.
void check_vocab(const gguf_file & file, int n_vocab);

} // namespace lazygguf
