"""Writers of checkpoint files for tests: safetensors and torch.save archives, without either library.

Owns the bytes. Nothing is checked, so that tests can write files that lie.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

Arrays = Mapping[str, np.ndarray]
_STORAGE = {"F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage"}


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """Float values as a checkpoint stores them; BF16 by rounding to nearest even, as uint16."""
    values = np.ascontiguousarray(values, np.float32)
    if dtype == "F32":
        return values
    if dtype == "F16":
        return values.astype(np.float16)
    bits = values.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def as_float(array: np.ndarray, dtype: str) -> np.ndarray:
    """The values of a stored array, float32."""
    if dtype == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


def write_safetensors(path: Path, tensors: Arrays, dtype: str = "F32") -> None:
    """A well-formed file of float tensors."""
    arrays = {name: stored(values, dtype) for name, values in tensors.items()}
    header, offset = {}, 0
    for name, array in arrays.items():
        entry = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        header[name], offset = entry, offset + array.nbytes
    write_raw_safetensors(path, {"__metadata__": {"format": "pt"}, **header}, (a.data for a in arrays.values()))


def write_raw_safetensors(path: Path, header: Any, data: Iterable[Any]) -> None:
    """Any header and any bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for piece in data:
            file.write(piece)


class TorchView:
    """A tensor that is a view of a storage: (storage array, first element, shape, strides)."""

    def __init__(self, storage: np.ndarray, first: int, shape: Sequence[int], strides: Sequence[int]) -> None:
        self.storage, self.first, self.shape, self.strides = storage, first, tuple(shape), tuple(strides)


def write_torch(path: Path, tensors: Mapping[str, Any], dtype: str = "F32", *, parameters: bool = False) -> None:
    """A torch.save archive of a state dict; values are float arrays or TorchView over stored arrays."""
    views = []
    for name, value in tensors.items():
        if not isinstance(value, TorchView):
            array = stored(value, dtype)
            value = TorchView(array, 0, array.shape, [s // array.itemsize for s in array.strides])
        views.append((name, value))
    pickle = Pickle()
    pickle.begin_dict()
    for key, (name, view) in enumerate(views):
        pickle.text(name)
        pickle.tensor(_STORAGE[dtype], str(key), view, parameter=parameters)
    pickle.end_dict()
    write_raw_torch(path, pickle.done(), [view.storage for _, view in views])


def write_raw_torch(
    path: Path, pickle: bytes, storages: Sequence[np.ndarray], compression: int = zipfile.ZIP_STORED
) -> None:
    """An archive of any pickle and any storages."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickle)
        archive.writestr("archive/byteorder", b"little")
        for key, storage in enumerate(storages):
            archive.writestr(f"archive/data/{key}", np.ascontiguousarray(storage).tobytes())
        archive.writestr("archive/version", b"3\n")


class Pickle:
    """Emits the opcodes that torch.save writes."""

    def __init__(self) -> None:
        self._out = bytearray(b"\x80\x02")

    def done(self) -> bytes:
        return bytes(self._out) + b"."

    def raw(self, opcodes: bytes) -> None:
        self._out += opcodes

    def text(self, value: str) -> None:
        data = value.encode()
        self._out += b"X" + struct.pack("<I", len(data)) + data

    def integer(self, value: int) -> None:
        data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
        self._out += b"\x8a" + bytes([len(data)]) + data

    def name(self, module: str, name: str) -> None:
        self._out += f"c{module}\n{name}\n".encode()

    def begin_dict(self) -> None:
        self.name("collections", "OrderedDict")
        self._out += b")R("

    def end_dict(self) -> None:
        self._out += b"u"

    def integers(self, values: Iterable[int]) -> None:
        self._out += b"("
        for value in values:
            self.integer(value)
        self._out += b"t"

    def tensor(self, storage: str, key: str, view: TorchView, n: Optional[int] = None, parameter: bool = False) -> None:
        if parameter:
            self.name("torch._utils", "_rebuild_parameter")
            self._out += b"("
        self.name("torch._utils", "_rebuild_tensor_v2")
        self._out += b"(("
        self.text("storage")
        self.name("torch", storage)
        self.text(key)
        self.text("cpu")
        self.integer(view.storage.size if n is None else n)
        self._out += b"tQ"
        self.integer(view.first)
        self.integers(view.shape)
        self.integers(view.strides)
        self._out += b"\x89"
        self.name("collections", "OrderedDict")
        self._out += b")RtR"
        if parameter:
            self._out += b"\x89"
            self.name("collections", "OrderedDict")
            self._out += b")RtR"
