// arch.h: every architecture that runs, each in the file of its name. A new one is a name here and in arch.cpp.
#pragma once

#include "model/architecture.h"

namespace lazygguf {

extern const architecture GEMMA3;
extern const architecture GRANITE;
extern const architecture LLAMA;
extern const architecture OLMO2;
extern const architecture QWEN2;
extern const architecture QWEN3;
extern const architecture SMOLLM3;

} // namespace lazygguf
