"""A program in a pseudo-terminal, for tests that type and read what is shown."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import Callable

import pytest

WAIT_S = 120


def until(reached: Callable[[], bool], what: Callable[[], str]) -> None:
    """Waits, long enough for a busy machine."""
    deadline = time.monotonic() + WAIT_S
    while not reached():
        if time.monotonic() > deadline:
            pytest.fail(f"still {what()}")
        time.sleep(0.05)


class Pty:
    """A program in a pseudo-terminal, and the bytes that it shows."""

    def __init__(self, args: list[str], environment: dict[str, str]) -> None:
        import pty

        self.shown = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe(args[0], args, environment)

    def wait_for(self, text: bytes) -> bytes:
        """Reads until the text appears; gives what stands before it, and forgets both."""
        deadline = time.monotonic() + WAIT_S
        while text not in self.shown:
            assert time.monotonic() < deadline, f"waited for {text!r}, got {self.shown[-500:]!r}"
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self.fd, 65536)
                except OSError:
                    pytest.fail(f"ended before {text!r}: {self.shown[-500:]!r}")
        before, _, self.shown = self.shown.partition(text)
        return before

    def type(self, text: bytes) -> None:
        for i in range(0, len(text), 500):  # a terminal's buffer holds no more than 4,095
            os.write(self.fd, text[i : i + 500])
            time.sleep(0.02)

    def end(self) -> int:
        """The exit code, once the program has ended."""
        status: list[int] = []

        def ended() -> bool:
            if select.select([self.fd], [], [], 0)[0]:
                with contextlib.suppress(OSError):
                    self.shown += os.read(self.fd, 65536)
            pid, code = os.waitpid(self.pid, os.WNOHANG)
            status.append(code)
            return pid != 0

        until(ended, lambda: repr(self.shown[-500:]))
        self.pid = 0
        return os.waitstatus_to_exitcode(status[-1])

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)
