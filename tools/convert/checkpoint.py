"""Tensors of a checkpoint on disk, read a block of rows at a time.

Owns the memory maps and the views over them: plain, strided, concatenated over shards, with permuted rows. It
knows neither file formats nor models. A block is float32, float16, or uint16 holding bfloat16 bits; nothing
is converted here. ``release`` lets the mapped pages go, so a conversion's memory stays that of one block.
"""

from __future__ import annotations

import itertools
import mmap
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from lazygguf.errors import ModelFileError

Block = NDArray[Any]

# dtype name -> NumPy type of the stored elements (little endian); the bits of BF16 travel as uint16
STORED: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


class MappedFile:
    """A file mapped for reading. Truncating the file while it is mapped ends the process with SIGBUS."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with open(path, "rb") as file:
            self.size = file.seek(0, 2)
            if self.size == 0:
                raise ModelFileError(f"{path}: the file is empty")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def bytes_at(self, offset: int, size: int) -> bytes:
        """A copy of [offset, offset + size), which must lie inside the file."""
        self._inside(offset, size)
        return self._map[offset : offset + size]

    def elements(self, offset: int, count: int, dtype: np.dtype[Any]) -> Block:
        """A read-only view of count elements at a byte offset; no page is read."""
        self._inside(offset, count * dtype.itemsize)
        return np.frombuffer(self._map, dtype=dtype, count=count, offset=offset)

    def release(self, offset: int, size: int) -> None:
        """Tells the kernel that [offset, offset + size) is not needed any more."""
        if not hasattr(mmap, "MADV_DONTNEED"):  # Windows: the kernel trims the working set by itself
            return
        begin = offset // mmap.PAGESIZE * mmap.PAGESIZE
        end = min(self.size, -(-(offset + size) // mmap.PAGESIZE) * mmap.PAGESIZE)
        if end > begin:
            self._map.madvise(mmap.MADV_DONTNEED, begin, end - begin)

    def _inside(self, offset: int, size: int) -> None:
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ModelFileError(
                f"{self.path}: the file is incomplete: bytes {offset} to {offset + size} are needed, it has {self.size}"
            )


class Source:
    """A tensor that can be read by rows; its first dimension counts the rows, a 1-D tensor is read whole."""

    shape: tuple[int, ...]
    dtype: str

    def rows(self, begin: int, end: int) -> Block:
        """Rows [begin, end) as (end - begin, *shape[1:]); the block may be a view of the file."""
        raise NotImplementedError

    def release(self, begin: int, end: int) -> None:
        """Rows [begin, end) are not needed any more."""

    @property
    def n_elements(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


class FileTensor(Source):
    """A tensor inside a mapped file, at a byte offset; strides count elements, None means contiguous."""

    def __init__(
        self,
        file: MappedFile,
        dtype: str,
        shape: Sequence[int],
        offset: int,
        strides: Optional[Sequence[int]] = None,
    ) -> None:
        self.file, self.dtype, self.shape, self.offset = file, dtype, tuple(shape), offset
        stored = STORED[dtype]
        self._strides = contiguous_strides(self.shape) if strides is None else tuple(strides)
        span = 0 if 0 in self.shape else 1 + sum((n - 1) * s for n, s in zip(self.shape, self._strides))
        flat = file.elements(offset, span, stored)
        byte_strides = [s * stored.itemsize for s in self._strides]
        self._view = np.lib.stride_tricks.as_strided(flat, self.shape, byte_strides, writeable=False)

    def rows(self, begin: int, end: int) -> Block:
        return self._view[begin:end]

    def release(self, begin: int, end: int) -> None:
        if self._strides == contiguous_strides(self.shape):
            row = self._strides[0] * STORED[self.dtype].itemsize
            self.file.release(self.offset + begin * row, (end - begin) * row)
        elif end >= self.shape[0]:  # the rows of another layout are spread over all of it
            self.file.release(self.offset, self.file.size - self.offset)


class Concatenated(Source):
    """Shards of one tensor, joined along axis 0 (rows) or 1 (columns)."""

    def __init__(self, parts: Sequence[Source], axis: int) -> None:
        self.parts, self.axis, self.dtype = list(parts), axis, parts[0].dtype
        shape = list(parts[0].shape)
        shape[axis] = sum(part.shape[axis] for part in parts)
        self.shape = tuple(shape)

    def rows(self, begin: int, end: int) -> Block:
        if self.axis == 1:
            return np.concatenate([part.rows(begin, end) for part in self.parts], axis=1)
        blocks = [part.rows(lo, hi) for part, lo, hi in self._pieces(begin, end)]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    def release(self, begin: int, end: int) -> None:
        if self.axis == 1:
            for part in self.parts:
                part.release(begin, end)
        else:
            for part, lo, hi in self._pieces(begin, end):
                part.release(lo, hi)

    def _pieces(self, begin: int, end: int) -> list[tuple[Source, int, int]]:
        """The parts that hold rows [begin, end), each with its own row range."""
        pieces, first = [], 0
        for part in self.parts:
            lo, hi = max(begin - first, 0), min(end - first, part.shape[0])
            if lo < hi:
                pieces.append((part, lo, hi))
            first += part.shape[0]
        return pieces


class HalvesInterleaved(Source):
    """Rows of each head reordered from (first half, second half) to pairs.

    Hugging Face rotates element i with element i + half; GGUF's rope of the llama architecture rotates
    neighbours.
    """

    def __init__(self, source: Source, n_head: int) -> None:
        self.source, self.dtype, self.shape = source, source.dtype, source.shape
        self._head = source.shape[0] // n_head

    def rows(self, begin: int, end: int) -> Block:
        first, last = begin // self._head * self._head, -(-end // self._head) * self._head
        block = self.source.rows(first, last)
        halves = block.reshape(-1, 2, self._head // 2, *self.shape[1:])
        paired: Block = halves.swapaxes(1, 2).reshape(block.shape)
        return paired[begin - first : end - first]

    def release(self, begin: int, end: int) -> None:
        first, last = begin // self._head * self._head, -(-end // self._head) * self._head
        self.source.release(first, last)


class Unreadable(Source):
    """A tensor that cannot be a weight (an index buffer, FP8, empty): listed, refused when it is needed."""

    def __init__(self, path: Path, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        self.dtype, self.shape = dtype, shape
        self.why = f"{path}: tensor {name!r} is {dtype} {list(shape)}; {', '.join(STORED)} weights are converted"


class Constant(Source):
    """A small tensor that conversion computes itself."""

    def __init__(self, values: NDArray[np.float32]) -> None:
        self._values, self.shape, self.dtype = values, values.shape, "F32"

    def rows(self, begin: int, end: int) -> Block:
        return self._values[begin:end]


def is_count(value: object) -> bool:
    """Whether a value of a header can be a size or an offset."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides in elements; of one dimension at least."""
    return tuple(itertools.accumulate(reversed(shape[1:]), operator.mul, initial=1))[::-1]


def refuse_stand_in(path: Path, head: bytes) -> None:
    """Raises when the first bytes of a weight file say that it is a placeholder or a web page."""
    if head.startswith(b"version https://git-lfs"):
        raise ModelFileError(
            f"{path}: this is a git-lfs pointer, not the weights; run 'git lfs pull' in its folder, or download again"
        )
    if head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        raise ModelFileError(f"{path}: this is a web page, not a checkpoint; download the file again")
