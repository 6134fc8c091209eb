#!/usr/bin/env bash
# ggml's product of a K or IQ matrix with rows sums in another order from 8 rows on, in plain CPU buffers too: a row
# multiplied alone and the same row among seven have the same bits, among eight others.
#
# Package: llama-cpp-python 0.3.36 (ggml 0.25.3), compiled by pip on Linux x86-64; needs a C++ compiler.
# Seen:    2026-11, GCC 12.2, AVX-512. Q4_0, Q8_0 and MXFP4 had equal bits with 1 and with 40 rows; Q2_K, Q3_K, Q4_K,
#          Q5_K, Q6_K, IQ2_XXS, IQ3_S and IQ4_XS differed in the last bits below 8 rows.
# Matters: the logits after a prompt depend on how it was cut. Read 512 tokens and 1 more, or 513 at once, and the
#          rounding of the next layer's rows to 8 bits makes a large difference of a small one. A prompt cache that
#          reads only the last token again gives another answer to the same seed.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
"${PYTHON:-python3}" -m venv venv
if grep -qs amx_int8 /proc/cpuinfo; then # see gcc12-amx-tile-config.sh
  export CFLAGS="-mno-amx-tile -mno-amx-int8" CXXFLAGS="-mno-amx-tile -mno-amx-int8"
fi
venv/bin/pip install -q --disable-pip-version-check llama-cpp-python==0.3.36
site=$(echo "$PWD"/venv/lib/python3*/site-packages)

cat > rows.cpp <<'CPP'
#include <cstdint>
#include <cstdio>
#include <vector>

#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>

constexpr int64_t N_IN = 512, N_OUT = 64, N_ROWS = 40;

static std::vector<float> noise(int64_t n) {
    std::vector<float> out;
    for (uint64_t state = 9; static_cast<int64_t>(out.size()) < n;) {
        state = state * 6364136223846793005ULL + 1442695040888963407ULL;
        out.push_back(static_cast<float>(static_cast<int32_t>(state >> 32)) / 2147483648.0F);
    }
    return out;
}

// The first row's products, computed together with n - 1 others.
static std::vector<float> first_row(ggml_backend_t cpu, ggml_type type, int64_t n) {
    ggml_context * ctx = ggml_init({1 << 20, nullptr, true});
    ggml_tensor * matrix = ggml_new_tensor_2d(ctx, type, N_IN, N_OUT);
    ggml_tensor * rows = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, N_IN, n);
    ggml_tensor * products = ggml_mul_mat(ctx, matrix, rows);
    ggml_cgraph * graph = ggml_new_graph(ctx);
    ggml_build_forward_expand(graph, products);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(ctx, cpu);
    const std::vector<float> values = noise(N_IN * N_OUT), x = noise(N_IN * N_ROWS), importance(N_IN, 1.0F);
    std::vector<char> bytes(ggml_nbytes(matrix));
    ggml_quantize_chunk(type, values.data(), bytes.data(), 0, N_OUT, N_IN, importance.data());
    ggml_backend_tensor_set(matrix, bytes.data(), 0, bytes.size());
    ggml_backend_tensor_set(rows, x.data(), 0, ggml_nbytes(rows));
    ggml_backend_graph_compute(cpu, graph);
    std::vector<float> out(N_OUT);
    ggml_backend_tensor_get(products, out.data(), 0, out.size() * sizeof(float));
    ggml_backend_buffer_free(buffer);
    ggml_free(ctx);
    return out;
}

int main() {
    ggml_backend_t cpu = ggml_backend_cpu_init();
    bool as_written = true;
    struct { ggml_type type; bool changes; } cases[] = {
        {GGML_TYPE_Q4_0, false}, {GGML_TYPE_Q8_0, false}, {GGML_TYPE_MXFP4, false}, {GGML_TYPE_Q2_K, true},
        {GGML_TYPE_Q3_K, true}, {GGML_TYPE_Q4_K, true}, {GGML_TYPE_Q5_K, true}, {GGML_TYPE_Q6_K, true},
        {GGML_TYPE_IQ2_XXS, true}, {GGML_TYPE_IQ3_S, true}, {GGML_TYPE_IQ4_XS, true},
    };
    for (const auto & c : cases) {
        const auto alone = first_row(cpu, c.type, 1), seven = first_row(cpu, c.type, 7);
        const auto eight = first_row(cpu, c.type, 8), forty = first_row(cpu, c.type, N_ROWS);
        const bool changes = alone == seven && seven != eight && eight == forty;
        std::printf("%-8s 1 = 7: %d  7 = 8: %d  8 = 40: %d\n", ggml_type_name(c.type), alone == seven, seven == eight,
                    eight == forty);
        as_written = as_written && changes == c.changes;
    }
    ggml_backend_free(cpu);
    return as_written ? 0 : 1;
}
CPP
c++ -std=c++17 -O1 -I"$site/include" rows.cpp -o rows -L"$site/llama_cpp/lib" -lggml -lggml-base -lggml-cpu \
  -Wl,-rpath,"$site/llama_cpp/lib"
./rows
