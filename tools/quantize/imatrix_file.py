"""Importance matrices of llama.cpp: the older binary form and the newer GGUF form.

Owns both layouts and their bounds; the result is what llama_model_quantize wants, the mean of the squared
activations of each input column.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lazygguf.errors import ModelFileError

SUMS, COUNTS = ".in_sum2", ".counts"
MAX_SIZE = 4 * 1024**3


def read_imatrix(path: Path) -> dict[str, NDArray[np.float32]]:
    """Values (n_columns,) by tensor name, all finite.

    Raises:
        ModelFileError: No importance matrix, or damaged.
    """
    size = path.stat().st_size
    if size > MAX_SIZE:
        raise ModelFileError(f"{path}: {size} bytes are too many for an importance matrix")
    with open(path, "rb") as file:
        magic = file.read(4)
    entries = _read_gguf(path) if magic == b"GGUF" else _read_binary(path)
    if not entries:
        raise ModelFileError(f"{path}: the importance matrix has no entries")
    for name, values in entries.items():
        if not np.isfinite(values).all():
            raise ModelFileError(f"{path}: the importance matrix of {name} holds NaN or Inf")
    return entries


def _read_gguf(path: Path) -> dict[str, NDArray[np.float32]]:
    from lazygguf._ffi import NativeFile

    tensors: dict[str, NDArray[np.float32]] = {}
    with NativeFile(path) as file:  # checks that every tensor lies inside the file
        for info in file.tensors:
            if info.type_name != "F32":
                raise ModelFileError(f"{path}: {info.name} is {info.type_name}, expected F32")
            tensors[info.name] = np.fromfile(path, "<f4", info.n_bytes // 4, offset=info.offset)
    entries = {}
    for name, sums in tensors.items():
        if not name.endswith(SUMS):
            continue
        base = name[: -len(SUMS)]
        counts = tensors.get(base + COUNTS)
        if counts is None or counts.size == 0 or sums.size % counts.size:
            raise ModelFileError(f"{path}: {base} has sums and no counts that fit them")
        entries[base] = _mean(sums.reshape(counts.size, -1), counts)
    return entries


def _mean(sums: NDArray[np.float32], counts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums by count; a matrix (of an expert) that was never used counts all columns alike."""
    used = counts > 0
    means = np.ones_like(sums)
    means[used] = sums[used] / np.rint(counts[used])[:, None]
    return means.reshape(-1)


def _read_binary(path: Path) -> dict[str, NDArray[np.float32]]:
    """int32 entries, then of each: int32 length, name, int32 calls, int32 values, float32 sums."""
    data = path.read_bytes()
    position = 0

    def take(n: int) -> bytes:
        nonlocal position
        if n < 0 or position + n > len(data):
            raise ModelFileError(f"{path}: no importance matrix, or the file is incomplete at byte {position}")
        position += n
        return data[position - n : position]

    def integer() -> int:
        return int.from_bytes(take(4), "little", signed=True)

    entries: dict[str, Any] = {}
    n_entries = integer()
    if not 0 < n_entries < 1 << 20:
        raise ModelFileError(f"{path}: no importance matrix: it claims {n_entries} entries")
    for _ in range(n_entries):
        name = take(integer()).decode("utf-8", "replace")
        n_calls, n_values = integer(), integer()
        sums = np.frombuffer(take(4 * n_values), "<f4").astype(np.float32)
        entries[name] = sums / n_calls if n_calls > 0 else sums
    return entries
