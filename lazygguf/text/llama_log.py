"""Where llama.cpp's log lines go.

Owns the one log callback that this process gives to llama.cpp and ggml: lines go to the Python logger
``lazygguf.llama_cpp`` at level DEBUG, to a ``captured_log`` block that is open on the same thread, or, after
``show_llama_log``, to stderr. Without it llama.cpp writes to the user's terminal.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

import llama_cpp

logger = logging.getLogger("lazygguf.llama_cpp")
_llama_cpp_logger = logging.getLogger("llama-cpp-python")
_open = threading.local()  # .lines: the list of the block open on this thread
_shown = threading.Event()


def show_llama_log() -> None:
    """Sends llama.cpp's lines to stderr from now on (``verbose=True``), for every model in the process."""
    _shown.set()


@contextlib.contextmanager
def captured_log() -> Iterator[list[str]]:
    """Collects the lines that llama.cpp writes on this thread while the block is open."""
    before = getattr(_open, "lines", None)
    lines: list[str] = []
    _open.lines = lines
    try:
        yield lines
    finally:
        _open.lines = before


def _write(level: int, text: bytes, user_data: Any) -> None:
    # runs inside C: nothing may escape
    try:
        line = text.decode("utf-8", "replace")
        lines = getattr(_open, "lines", None)
        if lines is not None:
            lines.append(line)
        # llama_cpp.Llama(verbose=True) sets its logger to DEBUG and expects its lines on stderr
        if _shown.is_set() or _llama_cpp_logger.level == logging.DEBUG:
            sys.stderr.write(line)
        elif line.strip() and lines is None:
            logger.debug("%s", line.rstrip())
    except Exception:
        return


_callback = llama_cpp.llama_log_callback(_write)  # kept: llama.cpp holds the pointer
llama_cpp.llama_log_set(_callback, ctypes.c_void_p(0))
