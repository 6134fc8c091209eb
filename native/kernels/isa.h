// isa.h: which instruction set the kernels of this process are for.
//
// Owns the choice, made once: the best set that this CPU has, or a lesser one named by the environment variable
// LAZYGGUF_ISA.
#pragma once

#include <string>
#include <vector>

#include "simd/kernel_set.h"

namespace lazygguf {

// "avx2", "avx512vnni", ...: the names that LAZYGGUF_ISA takes, of those that this CPU has, best first.
std::vector<std::string> isa_names();

// The one in use. Fails with INVALID_ARGUMENT where LAZYGGUF_ISA names none of isa_names().
const std::string & isa_name();
const kernel_set & kernels();

} // namespace lazygguf
