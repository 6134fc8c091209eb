"""Text files and stdin as text: which encoding they have, and what is no text."""

from __future__ import annotations

import codecs
import sys
from pathlib import Path

_LOOKED_AT = 8192  # bytes in which a NUL says that a file is not text
# UTF-32 first: its mark for little-endian begins with that of UTF-16
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: str) -> str:
    """A text file, or stdin for ``-``: UTF-16 or UTF-32 where it begins with their mark, else UTF-8.

    Bytes that are not text in that encoding become U+FFFD.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not text.
    """
    data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)
    if encoding is None:
        encoding = "utf-8-sig"
        if b"\0" in data[:_LOOKED_AT]:
            raise ValueError(f"{'stdin' if path == '-' else path}: {_not_text(data[:_LOOKED_AT])}")
    return data.decode(encoding, "replace").replace("\r\n", "\n")


def _not_text(data: bytes) -> str:
    """What bytes with a NUL among them are."""
    for name, nul, other in (("UTF-16LE", 1, 0), ("UTF-16BE", 0, 1)):
        if len(data) > 1 and data[nul::2].count(0) > len(data) // 4 and 0 not in data[other::2]:
            return f"looks like {name} without a byte order mark; iconv -f {name} -t UTF-8 makes it readable"
    return "a binary file, expected text"
