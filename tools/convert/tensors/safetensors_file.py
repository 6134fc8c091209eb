"""The header of a safetensors file, checked in full before any of it is used.

Owns the format's rules: header length, JSON without repeated names, known types, shapes that match their byte
ranges, ranges that lie inside the file and leave neither holes nor overlaps. The data is mapped, never
copied.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from lazygguf.errors import ModelFileError

from ..checkpoint import STORED, FileTensor, MappedFile, Source, Unreadable, is_count, refuse_stand_in

MAX_HEADER = 100 * 1000 * 1000  # bytes; the limit of the format's own library
ITEM_SIZES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
    "U16": 2,
    "U32": 4,
    "U64": 8,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
}


def open_safetensors(path: Path) -> dict[str, Source]:
    """Every tensor of a safetensors file, by name.

    Raises:
        ModelFileError: The header lies about the file, or the file is not whole.
    """
    file = MappedFile(path)
    refuse_stand_in(path, file.bytes_at(0, min(file.size, 64)))
    header, data = _read_header(file)
    header.pop("__metadata__", None)
    entries = {name: _entry(path, name, entry) for name, entry in header.items()}
    _check_spans(file, [(begin, end, name) for name, (_, _, begin, end) in entries.items()], data)
    tensors: dict[str, Source] = {}
    for name, (dtype, shape, begin, _) in entries.items():
        if dtype in STORED and shape and 0 not in shape:
            tensors[name] = FileTensor(file, dtype, shape, data + begin)
        else:
            tensors[name] = Unreadable(path, name, dtype, shape)
    return tensors


def _read_header(file: MappedFile) -> tuple[dict[str, Any], int]:
    """The parsed header and the offset of the data section."""
    if file.size < 8:
        raise ModelFileError(f"{file.path}: {file.size} bytes are too few for a safetensors file")
    length = int.from_bytes(file.bytes_at(0, 8), "little")
    if length > MAX_HEADER or 8 + length > file.size:
        raise ModelFileError(
            f"{file.path}: the header claims {length} bytes in a file of {file.size}; "
            "it is damaged or no safetensors file"
        )
    try:
        header = json.loads(file.bytes_at(8, length), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{file.path}: the header is no valid JSON: {error}") from error
    if not isinstance(header, dict):
        raise ModelFileError(f"{file.path}: the header is a {type(header).__name__}, expected an object")
    return header, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"{key!r} appears twice")
        result[key] = value
    return result


def _entry(path: Path, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """dtype, shape and byte range of one tensor, each consistent with the others."""
    if not isinstance(entry, dict):
        raise ModelFileError(f"{path}: tensor {name!r}: the header holds {entry!r}, expected an object")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str):
        raise ModelFileError(f"{path}: tensor {name!r}: dtype is {dtype!r}")
    if dtype not in ITEM_SIZES:
        raise ModelFileError(f"{path}: tensor {name!r}: safetensors has no type {dtype!r}")
    if not isinstance(shape, list) or not all(is_count(n) for n in shape):
        raise ModelFileError(f"{path}: tensor {name!r}: shape is {shape!r}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(is_count(n) for n in offsets):
        raise ModelFileError(f"{path}: tensor {name!r}: data_offsets is {offsets!r}")
    size = ITEM_SIZES[dtype] * math.prod(shape)
    if offsets[1] - offsets[0] != size:
        raise ModelFileError(
            f"{path}: tensor {name!r}: {dtype} {shape} needs {size} bytes, "
            f"the header gives it {offsets[0]}-{offsets[1]}"
        )
    return dtype, tuple(shape), offsets[0], offsets[1]


def _check_spans(file: MappedFile, spans: list[tuple[int, int, str]], data: int) -> None:
    """The ranges tile the data section from its first byte to the end of the file."""
    position, previous = 0, "the header"
    for begin, end, name in sorted(spans):
        if begin != position:
            what = "overlap" if begin < position else "leave a hole between them"
            raise ModelFileError(f"{file.path}: tensors {previous!r} and {name!r} {what} at byte {begin} of the data")
        position, previous = end, name
    if data + position != file.size:
        what = "incomplete" if data + position > file.size else "longer than its header says"
        raise ModelFileError(f"{file.path}: the file is {what}: expected {data + position} bytes, it has {file.size}")
