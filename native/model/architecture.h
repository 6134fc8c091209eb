// architecture.h: the description of one architecture that checks, loader and graph share.
//
// Owns the form: keys, tensors and the layer. Each architecture is one file in arch/ that fills it in; the checks of a
// file, the loader and the graph go by it and know no architecture by name.
#pragma once

#include <string>
#include <vector>

#include "model/hparams.h"
#include "model/tensors.h"

namespace lazygguf {

class layer_builder; // graph/layer_builder.h
struct hidden;

struct architecture {
    const char * name;   // general.architecture
    const char * models; // the models of this kind, for messages
    // Reads the keys, with the pieces of model/hparams.h.
    void (*keys)(const gguf_file & file, hparams & hp);
    // Names the tensors of one layer, in file order of llama.cpp's converter.
    void (*tensors)(tensor_list & list, layer_weights & w, const hparams & hp);
    // inp F32 [n_embd, n_rows] -> F32 [n_embd, n_rows]
    hidden (*layer)(layer_builder & b, const hidden & inp);
};

// Every architecture that runs (arch/arch.cpp).
const std::vector<const architecture *> & architectures();
// The one of this name, null where there is none.
const architecture * find_architecture(const std::string & name);
// "supported are 'llama' (Llama 1/2/3, ...) and 'qwen2' (...) files, dense models only"
std::string supported_architectures();

} // namespace lazygguf
