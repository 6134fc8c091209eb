// isa.cpp: the CPU is asked.

#include "kernels/isa.h"

#include <cstdlib>

#include "base/error.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace lazygguf {

// Each is compiled from the same sources, with the options that CMakeLists.txt names.
#define LAZY_DECLARE(isa)                                                                                              \
    namespace isa {                                                                                                    \
    attention_kernels attention();                                                                                     \
    matmul_kernels matmul();                                                                                           \
    }
LAZY_DECLARE(plain)
#if defined(__x86_64__)
LAZY_DECLARE(avx2)
LAZY_DECLARE(avxvnni)
LAZY_DECLARE(avx512vnni)
#elif defined(__aarch64__)
LAZY_DECLARE(dotprod)
LAZY_DECLARE(i8mm)
#endif
#undef LAZY_DECLARE

namespace {

struct isa {
    const char * name;
    bool (*is_here)();
    kernel_set (*kernels)();
};

#define LAZY_ISA_OF(isa) []() { return kernel_set{isa::attention(), isa::matmul()}; }

#if defined(__x86_64__)
bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
           __builtin_cpu_supports("bmi2");
}
bool has_avx_vnni() { return has_avx2() && __builtin_cpu_supports("avxvnni"); }
bool has_avx512_vnni() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}
#elif defined(__aarch64__) && defined(__linux__)
bool has_dotprod() { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }
bool has_i8mm() { return has_dotprod() && (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0; }
#elif defined(__aarch64__)
bool has_dotprod() { return true; } // every Apple CPU with this architecture
bool has_i8mm() { return false; }
#endif

// Best first.
constexpr isa ISAS[] = {
#if defined(__x86_64__)
    {"avx512vnni", has_avx512_vnni, LAZY_ISA_OF(avx512vnni)},
    {"avxvnni", has_avx_vnni, LAZY_ISA_OF(avxvnni)},
    {"avx2", has_avx2, LAZY_ISA_OF(avx2)},
#elif defined(__aarch64__)
    {"i8mm", has_i8mm, LAZY_ISA_OF(i8mm)},
    {"dotprod", has_dotprod, LAZY_ISA_OF(dotprod)},
#endif
    {"plain", []() { return true; }, LAZY_ISA_OF(plain)},
};

struct chosen {
    std::string name;
    kernel_set kernels;
};

chosen choose() {
    const char * wanted = std::getenv("LAZYGGUF_ISA");
    const bool is_named = wanted != nullptr && *wanted != '\0';
    for (const isa & i : ISAS) {
        if (i.is_here() && (!is_named || i.name == std::string(wanted))) {
            return {i.name, i.kernels()};
        }
    }
    std::string names;
    for (const std::string & name : isa_names()) {
        names += (names.empty() ? "" : ", ") + name;
    }
    fail(status::invalid_argument,
         format("LAZYGGUF_ISA is '%s', expected one of those that this CPU has: %s", wanted, names.c_str()));
}

const chosen & the_chosen() {
    static const chosen c = choose();
    return c;
}

} // namespace

std::vector<std::string> isa_names() {
    std::vector<std::string> names;
    for (const isa & i : ISAS) {
        if (i.is_here()) {
            names.emplace_back(i.name);
        }
    }
    return names;
}

const std::string & isa_name() { return the_chosen().name; }
const kernel_set & kernels() { return the_chosen().kernels; }

} // namespace lazygguf
