"""A file of parts in blocks, each with a checksum: what a saved session lies in.

Owns the framing: magic, version, lengths, the header's place, checksums. docs/sessions.md describes it byte by byte.
What the header and the parts mean is ``read/saved.py``'s.

A block's checksum is the CRC-32 of zlib, begun with the block's number so that blocks in another order are noticed too.
It is for accidents. Somebody who changes a file on purpose can make checksums that fit, so that whoever reads a part
checks its values as well.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

from ..errors import SessionFileError

MAGIC = b"LAZYSESS"
VERSION = 1
BLOCK_BYTES = 1 << 18  # they stay in a CPU's cache while they are checked
# magic, version, bytes of a block, bytes of the file, bytes of the header, the header's checksum
_BEGIN = struct.Struct("<8sIIQQI")
_CHECKSUM = struct.Struct("<I")
_N_BEGIN = _BEGIN.size + _CHECKSUM.size
_MAX_HEADER = 1 << 26  # bytes; a header holds names and numbers


class Part(NamedTuple):
    """A part of a file: its name, and how many bytes it has without checksums."""

    name: str
    n_bytes: int


def _framed(n_bytes: int) -> int:
    """The bytes of a part with its checksums."""
    return n_bytes + -(-n_bytes // BLOCK_BYTES) * _CHECKSUM.size


class BlockWriter:
    """Writes a file: the header at once, then each part's bytes in the order in which the parts were named.

    Args:
        file: where to; at its begin.
        header: JSON values; the key "parts" is added.
        parts: what will be written.
    """

    def __init__(self, file: BinaryIO, header: Mapping[str, Any], parts: list[Part]) -> None:
        self._file = file
        self._left = [part.n_bytes for part in parts]
        self._block = bytearray()
        self._number = 0
        text = json.dumps({**header, "parts": [list(part) for part in parts]}).encode()
        n_file = _N_BEGIN + len(text) + sum(_framed(part.n_bytes) for part in parts)
        begin = _BEGIN.pack(MAGIC, VERSION, BLOCK_BYTES, n_file, len(text), zlib.crc32(text))
        file.write(begin + _CHECKSUM.pack(zlib.crc32(begin)) + text)

    def write(self, data: memoryview) -> None:
        """The next bytes of the part."""
        if not self._left or len(data) > self._left[0] - len(self._block):
            raise RuntimeError("a part has more bytes than was said before it")
        while len(data):
            n_block = min(BLOCK_BYTES, self._left[0])
            if not self._block and len(data) >= n_block:  # a whole block as it lies there
                self._end_block(data[:n_block])
                data = data[n_block:]
                continue
            piece = data[: n_block - len(self._block)]
            self._block += piece
            data = data[len(piece) :]
            if len(self._block) == n_block:
                self._end_block(memoryview(self._block))
                self._block = bytearray()

    def end_part(self) -> None:
        """All bytes of the part are there."""
        if self._left[0]:
            raise RuntimeError(f"a part lacks {self._left[0] - len(self._block)} bytes of what was said before it")
        del self._left[0]

    def _end_block(self, data: memoryview) -> None:
        self._file.write(data)
        self._file.write(_CHECKSUM.pack(zlib.crc32(data, self._number)))
        self._number += 1
        self._left[0] -= len(data)


class BlockReader:
    """Reads such a file; no byte of a part is given out before its block's checksum was compared.

    Args:
        file: at its begin; it can seek.
        name: what messages call it.

    Raises:
        SessionFileError: it is no such file, of another version, cut, or damaged.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._number = 0
        self._block = memoryview(b"")
        self._left = 0  # bytes of the part that were not read from the file yet
        n_file = file.seek(0, os.SEEK_END)
        file.seek(0)
        n_header = self._read_begin(n_file)
        self.header: dict[str, Any] = self._header(file.read(n_header))
        self._parts = self._read_parts(n_file - _N_BEGIN - n_header)

    def parts(self) -> Iterator[Part]:
        """The parts in their order. What of one was not read when the next one is asked for is passed over."""
        for part in self._parts:
            begin, first = self._file.tell(), self._number
            self._left, self._block = part.n_bytes, memoryview(b"")
            yield part
            self._file.seek(begin + _framed(part.n_bytes))
            self._number = first + -(-part.n_bytes // BLOCK_BYTES)

    def read_into(self, out: memoryview) -> None:
        """Fills a buffer with the next bytes of the part."""
        while len(out):
            if not len(self._block):
                n_block = min(BLOCK_BYTES, self._left)
                if n_block == 0:
                    raise self._damaged("a part ends early")
                if len(out) >= n_block:  # without a copy
                    self._read_block(out[:n_block])
                    out = out[n_block:]
                    continue
                block = memoryview(bytearray(n_block))
                self._read_block(block)
                self._block = block
            n = min(len(out), len(self._block))
            out[:n] = self._block[:n]
            out, self._block = out[n:], self._block[n:]

    def read_all(self) -> bytes:
        """The rest of the part."""
        out = bytearray(self._left + len(self._block))
        self.read_into(memoryview(out))
        return bytes(out)

    def _read_block(self, out: memoryview) -> None:
        n = self._file.readinto(out)  # type: ignore[attr-defined]
        checksum = self._file.read(_CHECKSUM.size)
        if n != len(out) or checksum != _CHECKSUM.pack(zlib.crc32(out, self._number)):
            raise self._damaged(f"the checksum of block {self._number} is wrong")
        self._number += 1
        self._left -= len(out)

    def _read_begin(self, n_file: int) -> int:
        """Checks the first bytes; the header's length."""
        begin = self._file.read(_N_BEGIN)
        if begin[: len(MAGIC)] != MAGIC:
            what = "empty" if not begin else "no saved session"
            raise SessionFileError(f"{self._name}: the file is {what}; lazygguf saves one with save_session or /save")
        if len(begin) < _N_BEGIN:
            raise self._damaged(f"it has {n_file} bytes")
        _, version, n_block, n_said, n_header, checksum = _BEGIN.unpack_from(begin)
        if version != VERSION:
            raise SessionFileError(
                f"{self._name}: the session has format {version}, expected {VERSION}; "
                "another version of lazygguf reads it"
            )
        if zlib.crc32(begin[: _BEGIN.size]) != _CHECKSUM.unpack_from(begin, _BEGIN.size)[0]:
            raise self._damaged("the checksum of its first bytes is wrong")
        if n_file != n_said:
            raise SessionFileError(f"{self._name}: the file is incomplete: need {n_said} bytes, have {n_file}")
        if n_block != BLOCK_BYTES or n_header > min(_MAX_HEADER, n_file - _N_BEGIN):
            raise self._damaged(f"blocks of {n_block} bytes, a header of {n_header}")
        self._header_checksum = checksum
        return int(n_header)

    def _header(self, text: bytes) -> dict[str, Any]:
        if zlib.crc32(text) != self._header_checksum:
            raise self._damaged("the checksum of its header is wrong")
        try:
            header = json.loads(text)
        except (ValueError, RecursionError):
            raise self._damaged("its header is no JSON") from None
        if not isinstance(header, dict):
            raise self._damaged("its header is no JSON object")
        return header

    def _read_parts(self, n_left: int) -> list[Part]:
        """The parts that the header names; together they fill the file."""
        named = self.header.get("parts")
        pairs = named if isinstance(named, list) else []
        parts = [Part(*pair) for pair in pairs if isinstance(pair, list) and len(pair) == 2]
        is_right = all(isinstance(p.name, str) and type(p.n_bytes) is int and 0 <= p.n_bytes <= n_left for p in parts)
        if not is_right or len(parts) != len(pairs) or sum(_framed(part.n_bytes) for part in parts) != n_left:
            raise self._damaged("its parts are not as long as the file")
        return parts

    def _damaged(self, what: str) -> SessionFileError:
        return SessionFileError(f"{self._name}: the saved session is damaged: {what}")
