"""The exceptions lazygguf raises for faults that are not plain wrong arguments.

Owns the class hierarchy only. Wrong arguments are ``ValueError`` or ``TypeError``, wrong use (a closed model,
a second thread) is ``RuntimeError``, and missing files and memory are Python's own ``OSError`` and
``MemoryError``.
"""

from __future__ import annotations


class LazyError(Exception):
    """Base of every error that is particular to lazygguf."""


class ModelFileError(LazyError):
    """The file is not a whole, well-formed GGUF model."""


class UnsupportedModelError(LazyError):
    """The file is a well-formed model of a kind that lazygguf does not run."""


class ContextFullError(LazyError, ValueError):
    """The tokens do not fit into the context. Also a ``ValueError``, what ``llama_cpp`` raises here."""


class Cancelled(LazyError):  # noqa: N818 (reads as what happened, like asyncio.CancelledError's short form)
    """The step was stopped by ``cancel()``; the session is at the last whole step and can go on."""
