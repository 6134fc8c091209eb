"""Ctrl-C for the whole command line: one KeyboardInterrupt at a time, and never a traceback.

Owns the handler of SIGINT while a command runs. Python's own raises at every Ctrl-C, so that a second one interrupts
what cleans up after the first and ends in a traceback. It knows nothing of commands.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Optional

from .terminal_mode import restore_terminal

EXIT_INTERRUPTED = 130  # 128 + SIGINT
_N_IGNORED = 1  # Ctrl-Cs that are ignored while an interrupt is being dealt with; the next one ends the process
_RETURNED_S = 0.05  # within which a function of a few lines has returned


class Interrupts:
    """A handler of SIGINT: raises KeyboardInterrupt, and no second one before the first was dealt with.

    What cleans up (removes a half-written file, keeps the turns of a conversation) so runs to its end. If it hangs,
    the third Ctrl-C ends the process at once.
    """

    def __init__(self) -> None:
        self._pending = False
        self._n_more = 0

    def __call__(self, number: int, frame: Optional[FrameType]) -> None:
        if not self._pending:
            self._pending = True
            raise KeyboardInterrupt
        self._n_more += 1
        if self._n_more > _N_IGNORED:
            restore_terminal()
            os._exit(EXIT_INTERRUPTED)

    def settle(self) -> None:
        """The interrupt was dealt with and the program goes on: the next Ctrl-C interrupts again."""
        self._pending = False
        self._n_more = 0


def _send_again(handler: Interrupts) -> None:
    time.sleep(_RETURNED_S)
    handler.settle()
    os.kill(os.getpid(), signal.SIGINT)


def settle_interrupt() -> None:
    """Tells the handler, where it is set, that the last interrupt was dealt with."""
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, Interrupts):
        handler.settle()


@contextlib.contextmanager
def orderly_interrupts(until_exit: bool) -> Iterator[None]:
    """Sets the handler. Does nothing outside the main thread, or where Ctrl-C is ignored or someone else's.

    Args:
        until_exit: the process ends after this. Then Ctrl-C is ignored from here to the end, while Python takes
            itself down, instead of being Python's own again.
    """
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    handler = Interrupts()
    show, show_lost = sys.excepthook, sys.unraisablehook

    def show_error(kind: type[BaseException], error: BaseException, traceback: Optional[TracebackType]) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            show(kind, error, traceback)

    def show_lost_error(lost: Any) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            show_lost(lost)
            return
        # raised in a __del__ or the like, where Python drops it: sent again, once this function has returned
        with contextlib.suppress(RuntimeError):  # no thread starts while Python takes itself down
            _thread.start_new_thread(_send_again, (handler,))

    sys.excepthook, sys.unraisablehook = show_error, show_lost_error
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        if until_exit:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        else:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.excepthook, sys.unraisablehook = show, show_lost
