"""GGUF files as the native core reads them: metadata and tensors, no weights."""

from __future__ import annotations

import os
from typing import Any, NamedTuple, Optional, Union

from .library import check, ffi, lib, path_bytes, text


class TensorInfo(NamedTuple):
    """A tensor of a file. ``ne`` is in ggml order: ``ne[0]`` is the contiguous dimension; offset in bytes."""

    name: str
    type_name: str
    ne: tuple[int, ...]
    offset: int
    n_bytes: int


class TensorRule(NamedTuple):
    """A tensor that a model may have, or must have. ``ne`` is in ggml order."""

    name: str
    ne: tuple[int, ...]
    required: bool


def shape_tensors(arch: str, **shape: int) -> list[TensorRule]:
    """The tensors of an architecture, in file order.

    Args:
        arch: ``general.architecture``.
        **shape: ``n_vocab``, ``n_embd``, ``n_layer``, ``n_head``, ``n_head_kv``, ``n_embd_head``, ``n_ff``.

    Raises:
        UnsupportedModelError: lazygguf does not run this architecture.
        ValueError: a number is below 1.
    """
    name = ffi.new("char[]", arch.encode())
    wanted = ffi.new("lazy_shape *", {"arch": name, **shape})
    n_max = 16 + 32 * shape["n_layer"]
    out, required, n = ffi.new("lazy_tensor_info[]", n_max), ffi.new("bool[]", n_max), ffi.new("int32_t *")
    check(lib.lazy_shape_tensors(out, required, n_max, n, wanted))
    assert n[0] <= n_max, "an architecture has more tensors than room was made for"
    return [TensorRule(text(out[i].name), tuple(out[i].ne), bool(required[i])) for i in range(n[0])]


class NativeFile:
    """A GGUF file whose container has been checked: metadata and tensor list, no weights.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: the path cannot be opened.
        ModelFileError: not a whole, well-formed GGUF file.
    """

    def __init__(self, path: Union[str, os.PathLike[str]]) -> None:
        out = ffi.new("lazy_file **")
        check(lib.lazy_file_open(out, path_bytes(path)))
        self._file = ffi.gc(out[0], lib.lazy_file_free)
        self._metadata: Optional[dict[str, Any]] = None

    def __enter__(self) -> NativeFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the metadata."""
        if self._file is not None:
            ffi.release(self._file)
            self._file = None

    @property
    def _handle(self) -> Any:
        if self._file is None:
            raise RuntimeError("the file is closed")
        return self._file

    def check(self) -> None:
        """Checks all that loading a model checks, without reading weights.

        Raises:
            ModelFileError: a key, tensor or vocabulary is missing or impossible.
            UnsupportedModelError: a model of a kind that lazygguf does not run.
        """
        check(lib.lazy_file_check(self._handle))

    def windows(self) -> tuple[int, ...]:
        """By layer, how many positions up to its own a token sees; 0: all.

        Raises:
            ModelFileError, UnsupportedModelError: as ``check``.
        """
        n = ffi.new("int32_t *")
        check(lib.lazy_file_windows(ffi.NULL, 0, n, self._handle))
        out = ffi.new("int32_t[]", n[0])
        check(lib.lazy_file_windows(out, n[0], n, self._handle))
        return tuple(out)

    def check_vocab(self) -> None:
        """Checks the vocabulary alone, for a file without tensors.

        Raises:
            ModelFileError: the vocabulary is none that llama.cpp can load.
            UnsupportedModelError: a tokenizer of a kind that lazygguf does not run.
        """
        check(lib.lazy_file_check_vocab(self._handle))

    def lacking_kernels(self, device: str) -> list[str]:
        """Kinds of weights and operations of the model that a device has no kernel for; they stay on the CPU. The
        file must be one that ``check`` accepts."""
        return text(lib.lazy_file_lacking(self._handle, device.encode())).splitlines()

    @property
    def size(self) -> int:
        """Size of the file, in bytes."""
        return int(lib.lazy_file_size(self._handle))

    @property
    def metadata(self) -> dict[str, Any]:
        """Every key-value pair; arrays are lists."""
        if self._metadata is None:
            n = lib.lazy_file_n_kv(self._handle)
            self._metadata = {text(lib.lazy_file_key(self._handle, i)): self._value(i) for i in range(n)}
        return self._metadata

    @property
    def tensors(self) -> list[TensorInfo]:
        """Every tensor, in file order."""
        infos = []
        info = ffi.new("lazy_tensor_info *")
        for i in range(lib.lazy_file_n_tensors(self._handle)):
            lib.lazy_file_tensor(self._file, i, info)
            name, type_name = text(info.name), text(info.type_name).upper()
            infos.append(TensorInfo(name, type_name, tuple(info.ne), info.offset, info.n_bytes))
        return infos

    def _value(self, i: int) -> Any:
        kv_type = lib.lazy_file_kv_type(self._file, i)
        if kv_type != lib.LAZY_KV_TYPE_ARRAY:
            return self._element(kv_type, i, 0)
        element_type = lib.lazy_file_arr_type(self._file, i)
        return [self._element(element_type, i, j) for j in range(lib.lazy_file_arr_n(self._file, i))]

    def _element(self, kv_type: int, i: int, j: int) -> Any:
        if kv_type == lib.LAZY_KV_TYPE_STRING:
            return text(lib.lazy_file_str(self._file, i, j))
        if kv_type in (lib.LAZY_KV_TYPE_FLOAT32, lib.LAZY_KV_TYPE_FLOAT64):
            return lib.lazy_file_f64(self._file, i, j)
        value = lib.lazy_file_i64(self._file, i, j)
        return bool(value) if kv_type == lib.LAZY_KV_TYPE_BOOL else value
