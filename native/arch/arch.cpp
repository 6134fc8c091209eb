// arch.cpp: the list of architectures.

#include "arch/arch.h"

#include "base/error.h"

namespace lazygguf {

const std::vector<const architecture *> & architectures() {
    static const std::vector<const architecture *> all = {&LLAMA, &QWEN2, &QWEN3, &GEMMA3, &GRANITE, &OLMO2, &SMOLLM3};
    return all;
}

const architecture * find_architecture(const std::string & name) {
    for (const architecture * arch : architectures()) {
        if (name == arch->name) {
            return arch;
        }
    }
    return nullptr;
}

std::string supported_architectures() {
    const std::vector<const architecture *> & all = architectures();
    std::string text = "supported are ";
    for (size_t i = 0; i < all.size(); ++i) {
        text += i == 0 ? "" : i + 1 == all.size() ? " and " : ", ";
        text += format("'%s' (%s)", all[i]->name, all[i]->models);
    }
    return text + " files, dense models only";
}

} // namespace lazygguf
