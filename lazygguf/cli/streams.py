"""stdin, stdout and stderr as a program finds them: closed, full, or in an encoding that lacks characters.

Owns making them usable before a command runs, and saying what was written otherwise than it was meant.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from typing import Any, Optional, Union

from ..errors import DISK_FULL

_REPLACE = "lazygguf-replace"
_ESCAPED_BYTES = range(0xDC80, 0xDD00)  # lone surrogates that stand for bytes of a file's name

_first_replaced: Optional[str] = None
_said = False


def prepare_streams() -> bool:
    """Opens closed streams on the null device, and makes stdout replace what its encoding lacks.

    A file that is opened while descriptor 1 is closed would get that number, and prints would go into it.

    Returns:
        bool: stdout was closed.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    stdout_closed = sys.stdout is None
    # by name, not by number: something may have taken the number before
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is sys.__stderr__ and os.name != "nt":
        _let_stderr_fill()
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        codecs.register_error(_REPLACE, _replace)
        sys.stdout.reconfigure(errors=_REPLACE)
    return stdout_closed


class _Beside(io.RawIOBase):
    """A descriptor that may be full: what does not fit is lost."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        n_done = 0
        try:
            while n_done < len(data):
                n_done += os.write(self._fd, data[n_done:])
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
        return len(data)


def _let_stderr_fill() -> None:
    """A stderr that is full is no error: the answer goes to stdout, and it is good without what stands beside it."""
    old = sys.stderr
    # without a buffer: what cannot be written is not tried again when Python ends, which would be exit code 120
    raw: Any = _Beside(old.fileno())
    sys.stderr = io.TextIOWrapper(raw, encoding=old.encoding, errors=old.errors, write_through=True)


def stdout_is_unicode() -> bool:
    """Whether stdout can hold every character."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return codecs.lookup(encoding).name.startswith("utf")


def replaced_note() -> Optional[str]:
    """Says, the first time after it happened, that characters were replaced on stdout; else None."""
    global _said
    if _first_replaced is None or _said:
        return None
    _said = True
    code = f"U+{ord(_first_replaced):04X}"
    return (
        f'stdout is {sys.stdout.encoding}, which lacks {code} and maybe others: written as "?"; '
        "PYTHONIOENCODING=utf-8 writes them"
    )


def write_stdout(text: str = "") -> None:
    """Writes at once.

    Raises:
        BrokenPipeError: nobody reads any more.
        OSError: it cannot be written; the error names stdout.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_stdout()
        raise OSError(error.errno, error.strerror, "stdout") from error


def drop_stdout() -> None:
    """Sends what is left for stdout to the null device: Python tries to write it when it ends."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _replace(error: UnicodeError) -> tuple[Union[str, bytes], int]:
    """An error handler of codecs: "?", or the byte that a lone surrogate stands for."""
    global _first_replaced
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if ord(character) in _ESCAPED_BYTES:
        return bytes([ord(character) - 0xDC00]), error.start + 1
    _first_replaced = _first_replaced or character
    return "?", error.start + 1
