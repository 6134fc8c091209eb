"""Documents and questions as text.

Owns reading a text file or stdin, and putting a document and a question together.
"""

from __future__ import annotations

import sys
from pathlib import Path

_LOOKED_AT = 8192  # bytes in which a NUL says that a file is not text


def read_text(path: str) -> str:
    """A text file, or stdin for ``-``; invalid UTF-8 becomes U+FFFD.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not text.
    """
    data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    if b"\0" in data[:_LOOKED_AT]:
        raise ValueError(f"{path}: a binary file, expected text")
    return data.decode("utf-8-sig", "replace").replace("\r\n", "\n")


def join_prompt(document: str, question: str) -> str:
    """A user turn: the document, a blank line, the question."""
    return "\n\n".join(part for part in (document.strip("\n"), question.strip("\n")) if part.strip())
