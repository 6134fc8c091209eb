// tensors.h: the list of tensors a model is made of.
//
// Owns how names, shapes and roles are listed, once: the checks of a file and the loader both walk this list. What is
// in it for a layer is its architecture's business.
#pragma once

#include <string>
#include <vector>

#include "model/hparams.h"
#include "model/weights.h"

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
    int il;              // -1: not of a layer
    ggml_tensor ** slot; // where the model keeps it; null for rope_freqs, which each device has once
};

constexpr const char * ROPE_FREQS = "rope_freqs.weight";

enum class bias { none, optional, required };

// What an architecture file writes the tensors of one layer into.
class tensor_list {
  public:
    tensor_list(std::vector<tensor_spec> & out, int il) : out_(out), il_(il) {}

    // blk.<il>.NAME.weight, F32 [n]
    void vector(const char * name, ggml_tensor *& slot, int64_t n);
    // blk.<il>.NAME.weight [n_in, n_out], and blk.<il>.NAME.bias, F32 [n_out], where it may or must be there
    void matrix(const char * name, linear_weights & slot, int64_t n_in, int64_t n_out, bias b = bias::none);
    // rope_freqs.weight, F32 [n], one for all layers, where the file has it
    void rope_freqs(int64_t n);

  private:
    std::vector<tensor_spec> & out_;
    int il_; // the layer that is listed

    std::string name_of(const char * name, const char * part) const;
};

// Every tensor that may be in a file of this shape. The slots are in `weights`, which gets its layers here.
std::vector<tensor_spec> list_tensors(const hparams & hp, model_weights & weights);

// Fails unless the file holds the required tensors with the right shapes and types, and none beyond the list.
void check_tensors(const gguf_file & file, const hparams & hp);

} // namespace lazygguf
