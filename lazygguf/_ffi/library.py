"""The native library itself: loaded once, its version checked, status codes turned into exceptions.

Owns the only import of ``lazygguf._native``.
"""

from __future__ import annotations

import os
import stat
from typing import Any, Union

import llama_cpp  # noqa: F401  loads the ggml libraries that the extension shares with llama.cpp

from .._native import ffi, lib
from ..errors import Cancelled, ContextFullError, LazyError, ModelFileError, UnsupportedModelError, one_line

__all__ = ["KV_DTYPES", "check", "choice", "ffi", "ggml_version", "lib", "path_bytes", "text"]

KV_DTYPES = {"f16": lib.LAZY_KV_DTYPE_F16, "f32": lib.LAZY_KV_DTYPE_F32, "q8_0": lib.LAZY_KV_DTYPE_Q8_0}
_EXCEPTIONS = {
    lib.LAZY_STATUS_INVALID_ARGUMENT: ValueError,
    lib.LAZY_STATUS_BAD_FILE: ModelFileError,
    lib.LAZY_STATUS_UNSUPPORTED: UnsupportedModelError,
    lib.LAZY_STATUS_CONTEXT_FULL: ContextFullError,
    lib.LAZY_STATUS_NO_MEMORY: MemoryError,
    lib.LAZY_STATUS_CANCELLED: Cancelled,
    lib.LAZY_STATUS_BUSY: RuntimeError,
    lib.LAZY_STATUS_FAILED: LazyError,
}


_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def text(pointer: Any) -> str:
    return bytes(ffi.string(pointer)).decode("utf-8", "replace")


def check(status: int) -> None:
    """Raises the exception that a status stands for, with the native core's message."""
    if status != lib.LAZY_STATUS_OK:
        raise _EXCEPTIONS.get(status, LazyError)(one_line(text(lib.lazy_last_error())))


def _check_ggml_version() -> None:
    built, found = text(lib.lazy_ggml_version_compiled()), text(lib.lazy_ggml_version())
    if built != found:
        raise ImportError(
            f"lazygguf was built for ggml {built}, but the installed llama-cpp-python brings ggml {found}; "
            "reinstall lazygguf (pip install --force-reinstall lazygguf) or the llama-cpp-python it was built with"
        )


_check_ggml_version()


def ggml_version() -> str:
    """Version of the ggml library in this process."""
    return text(lib.lazy_ggml_version())


def path_bytes(path: Union[str, os.PathLike[str]]) -> bytes:
    """The path for C, after Python has said in its own exceptions what is wrong with it.

    What is no file is not opened: a pipe that nobody writes to would block for ever.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        kind = next((kind for is_kind, kind in _KINDS if is_kind(mode)), "no file")
        raise ModelFileError(f"{os.fspath(path)}: this is {kind}, expected a file: its weights are read at any place")
    with open(path, "rb"):
        return os.fsencode(path)


def choice(values: dict[str, int], name: str, value: str) -> int:
    if value not in values:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(values)}")
    return int(values[value])
