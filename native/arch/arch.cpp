// arch.cpp: the list of architectures.

#include "arch/arch.h"

namespace lazygguf {

const std::vector<const architecture *> & architectures() {
    static const std::vector<const architecture *> all = {&LLAMA, &QWEN2, &QWEN3};
    return all;
}

} // namespace lazygguf
