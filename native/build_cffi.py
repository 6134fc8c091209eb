"""Writes the C source of the `lazygguf._native` extension from lazygguf.h.

Called by CMake as `build_cffi.py lazygguf.h _native.c`. The cdef is what stands between the header's two
markers, so the header is the only place where the interface is spelled.
"""

import re
import sys

import cffi

CALLBACKS = """
extern "Python" bool lazy_on_progress(void * user_data, int32_t n_done, int32_t n_total);
extern "Python" bool lazy_on_write(void * user_data, const void * data, size_t n);
extern "Python" bool lazy_on_read(void * user_data, void * out, size_t n);
"""
CONSTANTS = """
#define LAZY_VERSION ...
#define LAZY_DEFAULT_QUERY ...
#define LAZY_MAX_QUERY ...
#define LAZY_MAX_SEGMENTS ...
#define LAZY_GPU_LAYERS_AUTO ...
"""


def main(header_path: str, out_path: str) -> None:
    with open(header_path, encoding="utf-8") as f:
        header = f.read()
    match = re.search(r"// <cdef>(.*)// </cdef>", header, re.DOTALL)
    if match is None:
        raise SystemExit(f"{header_path}: the cdef markers are missing")
    ffi = cffi.FFI()
    ffi.cdef(match.group(1) + CONSTANTS + CALLBACKS)
    ffi.set_source("lazygguf._native", '#include "api/lazygguf.h"')
    ffi.emit_c_code(out_path)


if __name__ == "__main__":
    main(*sys.argv[1:])
