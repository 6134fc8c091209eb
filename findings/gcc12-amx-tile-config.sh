#!/usr/bin/env bash
# gcc 12.2 leaves the rows and columns out of an AMX tile configuration: its _tile_loadconfig tells the optimizer that
# 8 of the 64 bytes are read, so the stores of the others are removed at -O2. A copy of the instruction whose operand is
# the whole structure keeps them.
#
# Package: gcc-12, cpp-12 and libgcc-12-dev 12.2.0-14+deb12u1, Debian 12's compiler, unpacked from its archive (apt-get
#          download, nothing is installed; needs Debian 12 on x86-64). Compiled to assembly only: no AMX is needed.
# Seen:    2026-11. ggml's AMX kernels are such code: llama-cpp-python 0.3.36 (ggml 0.25.3), compiled by pip with this
#          gcc for a CPU that has AMX, ended with an illegal instruction as soon as a model read tokens there; a build
#          for AVX2 ran. llama.cpp's pull request 26954 describes the same.
# Matters: Debian 12 on a recent Xeon: llama-cpp-python installs and then ends the process. ggml compiles its AMX code
#          only where the compiler defines __AMX_INT8__: CMAKE_ARGS="-DCMAKE_C_FLAGS=-mno-amx-int8
#          -DCMAKE_CXX_FLAGS=-mno-amx-int8" leaves it out.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
for package in gcc-12 cpp-12 libgcc-12-dev; do
  apt-get download -qq -o APT::Sandbox::User=root "$package=12.2.0-14+deb12u1"
  dpkg-deb -x "$package"_*.deb root
done
gcc=root/usr/bin/x86_64-linux-gnu-gcc-12
"$gcc" --version | head -1

cat > config.c <<'C'
typedef struct {
    unsigned char palette, start_row, reserved[14];
    unsigned short columns[16];
    unsigned char rows[16];
} config_t;
#ifdef INTRINSIC
#include <immintrin.h>
#define LOAD(config) _tile_loadconfig(config)
#else
#define LOAD(config) __asm__ volatile("ldtilecfg %0" ::"m"(*(config)))
#endif
void configure(void) {
    config_t config = {0};
    config.palette = 1;
    for (int i = 0; i < 8; i++) {
        config.columns[i] = 48;
        config.rows[i] = 13;
    }
    LOAD(&config);
}
C
assembly() { "$gcc" -O2 -mamx-tile -S -o - config.c "$@" | grep -E '^\s+(mov|pxor|ldtile)'; }
ROWS=940422246894996749 # the eight rows as one number: the byte 13, eight times
echo 'with gcc'"'"'s intrinsic:'
assembly -DINTRINSIC | tee intrinsic
echo 'with an operand of 64 bytes:'
assembly | tee whole
grep -q ldtilecfg intrinsic
grep -q ldtilecfg whole
grep -q "$ROWS" whole
if grep -q "$ROWS" intrinsic; then
  echo 'the intrinsic stores the rows now'
  exit 1
fi
echo 'the intrinsic loads a configuration whose rows were never stored'
