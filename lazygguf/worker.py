"""A thread that Ctrl-C cannot leave half started.

``threading.Thread.start`` waits on a Condition. A signal handler that raises there ends in "release unlocked lock" or
loses the thread. Here the starter waits on a bare lock and need not know how far an interrupted start got: an action
that was called off before it began never begins.
"""

from __future__ import annotations

import _thread
from typing import Callable, Generic, Optional, TypeVar

Result = TypeVar("Result")

_POLL_S = 0.2  # Windows does not wake a waiting lock for Ctrl-C


class Worker(Generic[Result]):
    """Runs one action on a thread of its own."""

    def __init__(self, action: Callable[[], Result]) -> None:
        self._action = action
        self._done = _thread.allocate_lock()
        self._done.acquire()
        self._begun = self._ended = self._called_off = False
        self._results: list[Result] = []
        self._failure: Optional[BaseException] = None

    def start(self) -> None:
        """Starts the thread; it does not keep the process alive.

        Raises:
            MemoryError: there is no room for another thread.
        """
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError as error:
            raise MemoryError(f"{error}: no memory for its stack, or too many threads") from error

    def join(self) -> Result:
        """Waits for the started action and returns what it returned, or raises what it raised."""
        while not self._ended:
            self._done.acquire(timeout=_POLL_S)
        if self._failure is not None:
            raise self._failure
        if not self._results:
            raise RuntimeError("the action was called off before it began")
        return self._results[0]

    def stop(self) -> Optional[Result]:
        """Calls the action off, or waits for one that has begun: its result, None where it has none.

        For the way out after an interrupt, whether ``start`` came to its end or not.
        """
        self._called_off = True
        while self._begun and not self._ended:
            self._done.acquire(timeout=_POLL_S)
        return self._results[0] if self._results else None

    def _run(self) -> None:
        # set before _called_off is read; stop() does it in the opposite order, so one of them always sees the other
        self._begun = True
        try:
            if not self._called_off:
                self._results.append(self._action())
        except BaseException as error:
            self._failure = error
        finally:
            self._ended = True
            self._done.release()
