"""PyTorch checkpoints (.pth, .bin) without PyTorch: a zip of raw storages and a pickle that describes them.

Owns the zip layout and the tensors' geometry (storage, offset, shape, strides). The pickle runs in
pickle_machine, which executes nothing. Storages are mapped in place, never copied.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lazygguf.errors import ModelFileError, UnsupportedModelError

from ..checkpoint import STORED, FileTensor, MappedFile, Source, Unreadable, is_count, refuse_stand_in
from .pickle_machine import Refused, run_pickle

MAX_PICKLE = 256 * 1024 * 1024  # bytes of data.pkl; a 70B checkpoint has about 100 KB

# storage class -> (dtype name, bytes an element)
STORAGES = {
    "FloatStorage": ("F32", 4),
    "HalfStorage": ("F16", 2),
    "BFloat16Storage": ("BF16", 2),
    "DoubleStorage": ("F64", 8),
    "LongStorage": ("I64", 8),
    "IntStorage": ("I32", 4),
    "ShortStorage": ("I16", 2),
    "CharStorage": ("I8", 1),
    "ByteStorage": ("U8", 1),
    "BoolStorage": ("BOOL", 1),
}


@dataclass(frozen=True)
class StorageType:
    """What a name such as torch.FloatStorage stands for."""

    name: str


@dataclass(frozen=True)
class Storage:
    dtype: str
    item: int  # bytes an element
    offset: int  # of the first element in the file
    n_elements: int


@dataclass(frozen=True)
class TensorView:
    """The arguments of torch._utils._rebuild_tensor_v2, checked."""

    storage: Storage
    first: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def open_torch(path: Path) -> dict[str, Source]:
    """Every tensor of a torch.save file that holds a state dict, by name.

    Raises:
        ModelFileError: Not such a file, damaged, or its pickle asks for anything but tensors; it names what.
    """
    file = MappedFile(path)
    refuse_stand_in(path, file.bytes_at(0, min(file.size, 64)))
    reader = _TorchZip(file)
    state = reader.load()
    if not isinstance(state, dict):
        raise ModelFileError(f"{path}: the file holds a {type(state).__name__}, expected a state dict of tensors")
    if set(state) == {"model"} and isinstance(state["model"], dict):
        state = state["model"]
    tensors: dict[str, Source] = {}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, TensorView):
            raise ModelFileError(f"{path}: entry {name!r} is no tensor; expected a plain state dict")
        tensors[name] = _source(file, name, value)
    return tensors


def _source(file: MappedFile, name: str, view: TensorView) -> Source:
    storage = view.storage
    if storage.dtype not in STORED or not view.shape or 0 in view.shape:
        return Unreadable(file.path, name, storage.dtype, view.shape)
    return FileTensor(file, storage.dtype, view.shape, storage.offset + view.first * storage.item, view.strides)


class _TorchZip:
    """The zip archive: finds storages by key and unpickles data.pkl."""

    def __init__(self, file: MappedFile) -> None:
        self.file = file
        try:
            with zipfile.ZipFile(file.path) as archive:
                self._entries = {info.filename: info for info in archive.infolist()}
        except (zipfile.BadZipFile, ValueError, EOFError) as error:
            raise ModelFileError(f"{file.path}: {self._what_else()} ({error})") from error
        pickles = [name for name in self._entries if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ModelFileError(f"{file.path}: a zip archive with {len(pickles)} data.pkl, no torch.save file")
        self._prefix = pickles[0][: -len("data.pkl")]
        order = self._entries.get(self._prefix + "byteorder")
        if order is not None and self.file.bytes_at(*self._span(order)) != b"little":
            raise UnsupportedModelError(
                f"{file.path}: the tensors are big-endian; save them on a little-endian machine"
            )

    def load(self) -> Any:
        """The object that data.pkl describes, made of containers, numbers and TensorView only."""
        offset, size = self._span(self._entries[self._prefix + "data.pkl"])
        if size > MAX_PICKLE:
            raise ModelFileError(
                f"{self.file.path}: data.pkl has {size} bytes, a state dict's has fewer than {MAX_PICKLE}"
            )
        try:
            return run_pickle(self.file.bytes_at(offset, size), self._find_global, self._persistent)
        except Refused as error:
            raise ModelFileError(f"{self.file.path}: {error}; nothing of it was run") from error

    def _what_else(self) -> str:
        if self.file.bytes_at(0, min(2, self.file.size)) in (b"\x80\x02", b"\x80\x03", b"\x80\x04"):
            return "a bare pickle (torch.save before 1.6); save it again with a newer PyTorch"
        return "neither a torch.save archive nor whole"

    def _span(self, info: zipfile.ZipInfo) -> tuple[int, int]:
        """Offset and size of an entry's bytes in the file; they must be stored as they are."""
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
            raise ModelFileError(
                f"{self.file.path}: {info.filename} is compressed or encrypted, torch.save does neither"
            )
        local = self.file.bytes_at(info.header_offset, 30)
        if local[:4] != b"PK\x03\x04":
            raise ModelFileError(f"{self.file.path}: the zip directory points {info.filename} at no entry")
        begin = (
            info.header_offset + 30 + int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
        )
        if begin + info.file_size > self.file.size:
            raise ModelFileError(f"{self.file.path}: the file is incomplete: {info.filename} ends past its end")
        return begin, info.file_size

    def _persistent(self, pid: Any) -> Storage:
        """A storage reference: ("storage", class, key, location, number of elements)."""
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage" and isinstance(pid[1], StorageType)):
            raise Refused(f"the pickle refers to {pid!r}, expected a tensor storage")
        _, kind, key, _, n_elements = pid
        info = self._entries.get(f"{self._prefix}data/{key}") if isinstance(key, str) else None
        if info is None:
            raise Refused(f"the storage {key!r} is not in the archive")
        dtype, item = STORAGES[kind.name]
        offset, size = self._span(info)
        if not is_count(n_elements) or n_elements * item > size:
            raise Refused(f"storage {key!r} claims {n_elements} elements of {dtype} in {size} bytes")
        return Storage(dtype, item, offset, n_elements)

    def _find_global(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return StorageType(name)
        allowed: Mapping[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): _ordered_dict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        }
        if (module, name) not in allowed:
            raise Refused(f"the pickle asks for {module}.{name}, which no checkpoint of tensors needs")
        return allowed[module, name]


def _ordered_dict(*items: Any) -> dict[Any, Any]:
    if items not in ((), ([],)):
        raise Refused("OrderedDict is called with arguments")
    return {}


def _rebuild_parameter(data: Any, *_: Any) -> TensorView:
    if not isinstance(data, TensorView):
        raise Refused("a parameter holds no tensor")
    return data


def _rebuild_tensor(storage: Any, first: Any, shape: Any, strides: Any, *_: Any) -> TensorView:
    """A view of a storage that stays inside it."""
    counts = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides) <= 4
    if not (isinstance(storage, Storage) and counts and all(is_count(n) for n in (first, *shape, *strides))):
        raise Refused(f"a tensor with the shape {shape!r} and strides {strides!r} at {first!r}")
    last = first + sum((n - 1) * s for n, s in zip(shape, strides))
    if 0 not in shape and last >= storage.n_elements:
        raise Refused(f"a tensor {list(shape)} with strides {list(strides)} leaves its storage of {storage.n_elements}")
    return TensorView(storage, first, shape, strides)
