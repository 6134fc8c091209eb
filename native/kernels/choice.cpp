// choice.cpp: the table.

#include "kernels/choice.h"

#include <array>
#include <string>

#include "kernels/isa.h"

namespace lazygguf {
namespace {

// Where ggml's kernel is faster than ours over a prompt and a decode step together.
struct exception {
    const char * isa;
    ggml_type type;
};
constexpr std::array<exception, 0> GGML_IS_FASTER = {}; // none so far

} // namespace

bool is_ours(ggml_type type) {
    for (const exception & e : GGML_IS_FASTER) {
        if (e.type == type && isa_name() == e.isa) {
            return false;
        }
    }
    return true;
}

} // namespace lazygguf
