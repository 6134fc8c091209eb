"""The exceptions lazygguf raises for faults that are not plain wrong arguments.

Owns the class hierarchy only. Wrong arguments are ``ValueError`` or ``TypeError``, wrong use (a closed model,
a second thread) is ``RuntimeError``, and missing files and memory are Python's own ``OSError`` and
``MemoryError``.
"""

from __future__ import annotations

import errno

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, a quota, a file size limit

# control characters, and the separators that end a line, as a program would write them
_ESCAPES = {
    code: chr(code).encode("unicode_escape").decode() for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)
}


def one_line(text: str) -> str:
    """A message with control characters, line breaks among them, as escapes such as ``\\n``.

    Names of files and folders come from outside: they may hold anything, and a terminal obeys some of it.
    """
    return text.translate(_ESCAPES)


class LazyError(Exception):
    """Base of every error that is particular to lazygguf. Its message is one line, whatever a file is called."""

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(str(message)))


class ModelFileError(LazyError):
    """The file is not a whole, well-formed GGUF model."""


class UnsupportedModelError(LazyError):
    """The file is a well-formed model of a kind that lazygguf does not run."""


class SessionFileError(LazyError):
    """The file is not a whole saved session, or one of another model or with other options."""


class ContextFullError(LazyError, ValueError):
    """The tokens do not fit into the context. Also a ``ValueError``, what ``llama_cpp`` raises here."""


class Cancelled(LazyError):  # noqa: N818 (reads as what happened, like asyncio.CancelledError's short form)
    """The step was stopped by ``cancel()``; the session is at the last whole step and can go on."""
