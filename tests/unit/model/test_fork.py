"""Processes that begin after this one has read with two threads."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Callable

import pytest
from tiny_gguf import TinyConfig

from lazygguf._ffi import forked
from lazygguf.worker import Worker

PROGRAM = Path(__file__).parents[2] / "fork_program.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("how", ["fork", "forkserver", "spawn", "prefork", "loaded", "twice", "thread"])
def test_a_child_opens_a_model_and_reads_after_its_parent_has(
    how: str, tiny_model: Callable[[TinyConfig], tuple[Path, Any]]
) -> None:
    path, _ = tiny_model(TinyConfig())
    command = [sys.executable, str(PROGRAM), str(path), how]
    run = subprocess.run(command, timeout=300, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_an_interrupt_ends_what_another_thread_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forked._here, "is_forked", True)
    begun, cancelled = threading.Event(), threading.Event()

    def action() -> None:
        begun.set()
        assert cancelled.wait(60)

    def interrupted(worker: Any) -> None:
        assert begun.wait(60)
        raise KeyboardInterrupt

    monkeypatch.setattr(Worker, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        forked.compute(action, cancelled.set)
    assert cancelled.is_set()


def test_what_another_thread_raises_is_raised_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forked._here, "is_forked", True)
    with pytest.raises(ZeroDivisionError):
        forked.compute(lambda: 1 // 0)
