"""The terminal's mode while a conversation runs: what is typed during an answer is not echoed into it.

Owns the settings of the terminal that stdin is, and giving them back. It knows nothing of what is typed.
"""

from __future__ import annotations

import contextlib
import os
import sys
import termios
from collections.abc import Iterator
from typing import Any, Optional, TextIO

_SHOW_CURSOR = b"\x1b[?25h"  # a progress bar hides it
_LOCAL_FLAGS = 3  # index in what tcgetattr gives

_before: Optional[tuple[int, list[Any]]] = None


@contextlib.contextmanager
def unechoed_input() -> Iterator[None]:
    """Keeps what is typed for the next read, without echo and of any length. Ctrl-C and Ctrl-Z go on working.

    A terminal in its usual mode echoes at once, wherever the cursor is, and holds no line over 4,095 bytes. Does
    nothing where stdin is no terminal.
    """
    global _before
    try:
        fd = sys.stdin.fileno()
        before = termios.tcgetattr(fd)
    except (AttributeError, OSError, ValueError, termios.error):
        yield
        return
    quiet = termios.tcgetattr(fd)
    quiet[_LOCAL_FLAGS] &= ~(termios.ECHO | termios.ICANON)
    _before = fd, before
    try:
        termios.tcsetattr(fd, termios.TCSADRAIN, quiet)
        yield
    finally:
        restore_terminal()


def terminal_for_typing() -> Optional[TextIO]:
    """Where typing shows: stdout, stderr, or the terminal that stdin is, the first that is a terminal.

    None where there is none, or stdin is not a terminal but only says so.
    """
    try:
        fd = sys.stdin.fileno()
        if not os.isatty(fd):
            return None
        for stream in (sys.stdout, sys.stderr):
            if stream.isatty():
                return stream
        return open(os.ttyname(fd), "w", encoding="utf-8")
    except (AttributeError, OSError, ValueError):
        return None


def restore_terminal() -> None:
    """Gives the terminal back as it was before ``unechoed_input``; nothing else is done where it was not used."""
    global _before
    if _before is None:
        return
    fd, mode = _before
    with contextlib.suppress(termios.error):
        termios.tcsetattr(fd, termios.TCSADRAIN, mode)
    _before = None
    if os.isatty(2):
        with contextlib.suppress(OSError):
            os.write(2, _SHOW_CURSOR)
