"""The few functions of ggml itself that the benchmark asks: quantizing rows, backends, its commit.

Owns their ctypes signatures, on the library that llama-cpp-python has loaded.
"""

from __future__ import annotations

import ctypes
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from llama_cpp import _ggml


def _function(name: str, result: Any, *arguments: Any) -> Any:
    return ctypes.CFUNCTYPE(result, *arguments)((name, _ggml.libggml))


def backends() -> list[str]:
    """Names of ggml's backends beside the CPU's; the CPU's where there is no other."""
    get = _function("ggml_backend_reg_get", ctypes.c_void_p, ctypes.c_size_t)
    name = _function("ggml_backend_reg_name", ctypes.c_char_p, ctypes.c_void_p)
    count = _function("ggml_backend_reg_count", ctypes.c_size_t)()
    names = [name(get(i)).decode("utf-8", "replace") for i in range(count)]
    return [found for found in names if found != "CPU"] or ["CPU"]


def commit() -> str:
    """The commit of llama.cpp's tree that ggml was built from."""
    return str(_function("ggml_commit", ctypes.c_char_p)().decode("ascii", "replace"))


def quantize_rows(rows: npt.NDArray[np.float32], kind: gguf.GGMLQuantizationType) -> npt.NDArray[np.uint8]:
    """Rows of floats in a ggml type, (n_rows, row_bytes).

    Types that need an importance matrix get one that finds all weights equal.

    Args:
        rows: (n_rows, n_per_row) float32; n_per_row is a multiple of the type's block.
        kind: the type.
    """
    per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    n_rows, n_per_row = rows.shape
    if n_per_row % per_block:
        raise ValueError(f"rows of {n_per_row} are no whole blocks of {kind.name} ({per_block})")
    rows = np.ascontiguousarray(rows, np.float32)
    out = np.empty((n_rows, n_per_row // per_block * block_bytes), np.uint8)
    needs_imatrix = _function("ggml_quantize_requires_imatrix", ctypes.c_bool, ctypes.c_int)(int(kind))
    imatrix = np.ones(n_per_row, np.float32) if needs_imatrix else None
    quantize = _function(
        "ggml_quantize_chunk",
        ctypes.c_size_t,
        ctypes.c_int,
        *[ctypes.c_void_p] * 2,
        *[ctypes.c_int64] * 3,
        ctypes.c_void_p,
    )
    weights = None if imatrix is None else imatrix.ctypes.data
    n_bytes = quantize(int(kind), rows.ctypes.data, out.ctypes.data, 0, n_rows, n_per_row, weights)
    if n_bytes != out.nbytes:
        raise ValueError(f"ggml wrote {n_bytes} bytes of {kind.name}, expected {out.nbytes}")
    return out
