// choice.h: whose kernel multiplies with a type of matrix, ours or ggml's.
//
// Owns the decision. It is a table, not a measurement made while a model is opened: two processes on one machine must
// give the same numbers, and opening should be quick. `lazygguf bench --kernels` measures what the table says.
#pragma once

#include <ggml.h>

namespace lazygguf {

// Not: is there a kernel of ours. By type alone: a choice by the number of rows would make a row's result depend on
// how many are computed together.
bool is_ours(ggml_type type);

} // namespace lazygguf
