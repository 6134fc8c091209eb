"""Computing in a process that was forked.

ggml computes with OpenMP, whose threads belong to the thread that first asked for them. They are gone after a fork, but
OpenMP does not know: a thread that computed before the fork, with ggml or another library, waits for them for ever in
the child. A thread that begins after the fork gets threads of its own. So the thread that a forked process began with
hands its work to new ones. That takes about 0.1 ms for a step.
"""

from __future__ import annotations

import os
import threading
from typing import Callable, TypeVar

from ..worker import Worker

Result = TypeVar("Result")


class _Here(threading.local):
    """What is known of one thread."""

    is_forked = False  # it went through a fork: this process began with it


_here = _Here()


def _mark() -> None:
    _here.is_forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark)


def compute(action: Callable[[], Result], cancel: Callable[[], None] = lambda: None) -> Result:
    """Runs what computes; in a thread of its own where this one may not be able to.

    Args:
        action: what computes, with the check of its status: the native core keeps a message for each thread.
        cancel: ends the action early. Called where Ctrl-C comes while another thread runs it.
    """
    if not _here.is_forked:
        return action()
    worker = Worker(action)
    try:
        worker.start()
        return worker.join()
    except BaseException:
        cancel()
        worker.stop()
        raise
