// tensors.h: the list of tensors a model is made of.
//
// Owns names, shapes and roles, once: the checks of a file and the loader both walk this list.
#pragma once

#include <string>
#include <vector>

#include "model/hparams.h"

namespace lazygguf {

enum class tensor_use {
    rows,   // looked up by row (embeddings): stays in a plain buffer
    matmul, // multiplied with: may be repacked
    vector, // F32, added, multiplied or read by rope
};

struct tensor_spec {
    std::string name;
    tensor_use use;
    int64_t ne0;
    int64_t ne1; // 1 for vectors
    bool required;
    int il; // -1: not of a layer
};

// Every tensor that may be in a file of this shape, in file order of llama.cpp's converter.
std::vector<tensor_spec> list_tensors(const hparams & hp);

// Fails unless the file holds the tensors of list_tensors with the right shapes and types. Tensors beyond the list
// are ignored, as llama.cpp does.
void check_tensors(const gguf_file & file, const hparams & hp);

} // namespace lazygguf
