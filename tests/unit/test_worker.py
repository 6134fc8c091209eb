"""Worker: results and failures come back, and what is called off is done wholly or not at all."""

from __future__ import annotations

import threading

import pytest

from lazygguf.worker import Worker


def test_join_gives_what_the_action_returned() -> None:
    worker = Worker(threading.get_ident)
    worker.start()
    assert worker.join() not in (0, threading.get_ident())
    assert worker.stop() == worker.join()


def test_join_raises_what_the_action_raised() -> None:
    def fail() -> None:
        raise ValueError("no")

    worker = Worker(fail)
    worker.start()
    with pytest.raises(ValueError, match="no"):
        worker.join()
    assert worker.stop() is None


def test_what_was_called_off_before_it_began_never_begins() -> None:
    begun = threading.Event()
    worker = Worker(begun.set)
    assert worker.stop() is None
    worker.start()
    with pytest.raises(RuntimeError, match="called off"):
        worker.join()
    assert not begun.is_set()


def test_stop_waits_for_an_action_that_has_begun() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def action() -> str:
        begun.set()
        go_on.wait(60)
        return "whole"

    worker = Worker(action)
    worker.start()
    begun.wait(60)
    threading.Timer(0.02, go_on.set).start()
    assert worker.stop() == "whole"
