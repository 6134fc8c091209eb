// vocab.h: checks the tokenizer's part of a GGUF file.
//
// Tokenizing itself is llama.cpp's; it ends the process on some broken vocabularies (two equal tokens, for one), so
// they are refused here first.
#pragma once

#include "file/gguf_file.h"

namespace lazygguf {

// Fails with BAD_FILE unless the file holds a vocabulary of exactly n_vocab distinct tokens that llama.cpp can load.
void check_vocab(const gguf_file & file, int n_vocab);

} // namespace lazygguf
