"""Weights of a GGUF file that are no numbers.

Owns the reading of a file's tensors for ggml's own check of them, ggml_validate_row_data: it knows every type. Of
quantized blocks it looks at the scales, since nothing else in them can be NaN or infinite.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from llama_cpp import _ggml

from lazygguf._ffi import TensorInfo

_N_TYPES = 43  # GGML_TYPE_COUNT of the ggml that the pinned llama-cpp-python brings


def not_finite_tensors(path: str, tensors: Iterable[TensorInfo]) -> list[str]:
    """The names of the tensors that hold NaN or infinite values, in file order; reads the whole file."""
    validate = _function("ggml_validate_row_data", ctypes.c_bool, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
    numbers = _type_numbers()
    found = []
    with _quiet_stderr():  # ggml prints a line for each
        for tensor in tensors:
            if tensor.n_bytes == 0:
                continue
            data = np.memmap(path, np.uint8, "r", tensor.offset, (tensor.n_bytes,))
            if not validate(numbers[tensor.type_name], data.ctypes.data, tensor.n_bytes):
                found.append(tensor.name)
            del data  # the mapping goes, and its pages with it
    return found


def _type_numbers() -> dict[str, int]:
    """ggml_type by the name that the native core gives, which is ggml's in capitals."""
    name_of = _function("ggml_type_name", ctypes.c_char_p, ctypes.c_int)
    names = [(i, name_of(i)) for i in range(_N_TYPES)]
    return {name.decode("ascii", "replace").upper(): i for i, name in names if name}


def _function(name: str, result: Any, *arguments: Any) -> Any:
    return ctypes.CFUNCTYPE(result, *arguments)((name, _ggml.libggml))


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as away:
        os.dup2(away.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
