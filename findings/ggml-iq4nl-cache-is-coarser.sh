#!/usr/bin/env bash
# ggml has two quantizers for IQ4_NL. A model file gets the one that searches for the best scale; rows that are
# written at run time, a K/V cache of that type among them, get a simpler one. For Q4_0, Q4_1, Q5_0 and Q5_1 both give
# the same bytes; for Q8_0 a few blocks differ by one step.
#
# Package: libggml-python 0.20.2.post1 (ggml 0.20.2); gguf 0.19.0 to read the rows back. The same in the ggml 0.25.3 of
#          llama-cpp-python 0.3.36.
# Seen:    2026-11, Linux x86-64. Two thirds of the blocks differ; the error is 3% larger at run time.
# Matters: what IQ4_NL costs a cache cannot be concluded from a file of that type, and bytes are no way to compare them.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --only-binary :all: gguf==0.19.0 libggml-python==0.20.2.post1 numpy==2.4.6
cd "$dir"
venv/bin/python - <<'PYTHON'
import ctypes
from pathlib import Path

import gguf
import libggml
import numpy as np
from gguf import GGMLQuantizationType as Type

folder = Path(libggml.__file__).parent / "lib64"
base = ctypes.CDLL(str(folder / "libggml-base.so"), mode=ctypes.RTLD_GLOBAL)
cpu = ctypes.CDLL(str(folder / "libggml-cpu.so"))
FromFloat = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


class CpuTraits(ctypes.Structure):  # the first member is all that is used
    _fields_ = [("from_float", FromFloat)]


base.ggml_quantize_chunk.restype = ctypes.c_size_t
base.ggml_quantize_chunk.argtypes = [
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
]  # fmt: skip
cpu.ggml_get_type_traits_cpu.restype = ctypes.POINTER(CpuTraits)
cpu.ggml_cpu_init()

rows = np.random.default_rng(0).normal(size=(256, 1024)).astype(np.float32)


def stored(kind):
    """The rows as a file's tensor and as rows written at run time."""
    per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    of_file = np.zeros((256, 1024 // per_block * block_bytes), np.uint8)
    of_run = of_file.copy()
    n_bytes = base.ggml_quantize_chunk(int(kind), rows.ctypes.data, of_file.ctypes.data, 0, 256, 1024, None)
    assert n_bytes == of_file.nbytes
    cpu.ggml_get_type_traits_cpu(int(kind)).contents.from_float(rows.ctypes.data, of_run.ctypes.data, rows.size)
    return of_file, of_run


def error(data, kind):
    return float(np.sqrt(np.mean((gguf.quants.dequantize(data, kind) - rows) ** 2)))


for name in ("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL"):
    kind = Type[name]
    of_file, of_run = (data.reshape(-1, gguf.GGML_QUANT_SIZES[kind][1]) for data in stored(kind))
    differ = float((of_file != of_run).any(axis=1).mean())
    at_file, at_run = (error(data.reshape(256, -1), kind) for data in (of_file, of_run))
    print(f"{name}: {differ:.2%} of the blocks differ, error in a file {at_file:.4f}, at run time {at_run:.4f}")
    if name == "IQ4_NL":
        assert 0.6 < differ < 0.75 and 1.02 < at_run / at_file < 1.05
    else:
        assert differ < 0.01 if name == "Q8_0" else differ == 0
PYTHON
