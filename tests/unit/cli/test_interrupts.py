"""Ctrl-C at any moment, and a cancel in the middle of a graph: the session is at a whole step and goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest
from tiny_gguf import TinyConfig

from lazygguf import Cancelled, KeepSchedule, LazyModel
from lazygguf._ffi import NativeModel, NativeSession
from lazygguf.worker import Worker

pytestmark = pytest.mark.skipif(os.name != "posix", reason="interval timers of POSIX")

Write = Callable[[TinyConfig], tuple[Path, Any]]
CONFIG = TinyConfig(seed=3)
PROMPT = [int(token) for token in np.random.default_rng(0).integers(3, CONFIG.n_vocab, 60)]
SCHEDULES = {"dense": None, "lazy": KeepSchedule.parse("1:0.5,3:0.25", min_prompt=0)}


class Timer:
    """Ctrl-C after a random moment, delivered as the terminal's is."""

    def __init__(self) -> None:
        self.fired = False
        self._armed = False
        self._random = np.random.default_rng(0)

    def on_signal(self, *args: Any) -> None:
        if self._armed:  # another thread may get the signal, and tell of it, after the timer was stopped
            self.fired = True
            raise KeyboardInterrupt

    def runs_into(self, action: Callable[[], Any], longest_s: float) -> bool:
        """Whether the action was interrupted."""
        self.fired = False
        after_s = float(self._random.uniform(1e-5, longest_s))
        try:
            self._armed = True
            signal.setitimer(signal.ITIMER_REAL, after_s)
            action()
            self._armed = False
        except KeyboardInterrupt:
            self._armed = False
            return True
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return False


@pytest.fixture
def timer() -> Iterator[Timer]:
    started = Timer()
    before = signal.signal(signal.SIGALRM, started.on_signal)
    yield started
    signal.signal(signal.SIGALRM, before)


def duration(action: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_ctrl_c_at_any_moment_of_a_read_or_a_decode_leaves_a_whole_step(
    tiny_model: Write, timer: Timer, name: str
) -> None:
    model = NativeModel(tiny_model(CONFIG)[0])
    session, clean = (NativeSession(model, 256, n_ubatch=4, schedule=SCHEDULES[name]) for _ in range(2))
    n_interrupts = 0
    for ids in (PROMPT, [5], PROMPT[:20], [6]):
        n_past = clean.n_tokens
        longest_s = duration(lambda ids=ids: clean.eval(ids))  # type: ignore[misc]
        for _ in range(40):
            n_interrupts += timer.runs_into(lambda ids=ids: session.eval(ids), longest_s)  # type: ignore[misc]
            assert session.n_tokens in (n_past, n_past + len(ids))
            if session.n_tokens != n_past:
                break
        else:
            session.eval(ids)
        assert session.n_tokens == clean.n_tokens
        logits, expected = session.logits(), clean.logits()
        assert logits is not None and expected is not None
        np.testing.assert_array_equal(logits, expected)
    assert n_interrupts > 0


def interrupted_answers(path: str, timer: Timer) -> None:
    with LazyModel(path, n_threads=1, n_ubatch=16, keep="off", type_k="f32", type_v="f32") as model:

        def answer() -> str:
            return str(model.create_completion(PROMPT, max_tokens=8, temperature=0)["choices"][0]["text"])

        expected, longest_s = answer(), duration(answer)
        for _ in range(500):
            timer.runs_into(answer, longest_s)
        assert answer() == expected


def interrupted_loads(path: str, timer: Timer) -> None:
    def load() -> None:
        LazyModel(path, n_threads=1).close()

    load()
    longest_s = duration(load)
    n_fired = n_lost = 0
    for _ in range(200):
        n_lost += not timer.runs_into(load, longest_s) and timer.fired
        n_fired += timer.fired
    assert n_fired > 0
    # Python drops what is raised in a __del__, so a few may be lost; not those that come while C works
    assert n_lost <= n_fired // 50, f"{n_lost} of {n_fired} are lost"


def run_in_a_process(name: str, path: Path) -> None:
    """A lock that an interrupt leaves held would hang this one."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(entry or "." for entry in sys.path)}
    done = subprocess.run(
        [sys.executable, __file__, name, str(path)], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_ctrl_c_at_any_moment_of_an_answer_leaves_a_model_that_answers(tiny_model: Write) -> None:
    run_in_a_process("interrupted_answers", tiny_model(CONFIG)[0])


def test_ctrl_c_at_any_moment_of_loading_is_not_lost(tiny_model: Write) -> None:
    run_in_a_process("interrupted_loads", tiny_model(TinyConfig(tokenizer="bpe"))[0])


def test_ctrl_c_at_any_moment_of_a_worker_leaves_a_whole_action_or_none(timer: Timer) -> None:
    n_interrupts = 0
    for _ in range(2000):
        steps: list[str] = []

        def action(steps: list[str] = steps) -> None:
            steps.append("begun")
            steps.append("ended")

        worker = Worker(action)

        def run(worker: Worker[None] = worker) -> None:
            worker.start()
            worker.join()

        interrupted = timer.runs_into(run, 3e-4)
        n_interrupts += interrupted
        if interrupted:
            worker.stop()
        assert steps == ["begun", "ended"] or (interrupted and not steps)
    assert n_interrupts > 0


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_a_cancel_stops_a_graph_under_way(tiny_model: Write, name: str) -> None:
    model = NativeModel(tiny_model(TinyConfig(n_ctx_train=4096, n_ff=512))[0])
    session = NativeSession(model, n_ubatch=4096, schedule=SCHEDULES[name])  # no callback before a segment ends
    ids = PROMPT * 60
    errors: list[Optional[BaseException]] = []

    def read() -> None:
        try:
            for _ in range(100):
                session.eval(ids)
                session.reset()
            errors.append(None)
        except BaseException as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    while reader.is_alive():  # eval gives the GIL back, or this would not run
        session.cancel()
        reader.join(0.005)
    assert isinstance(errors[0], Cancelled)
    assert session.n_tokens == 0
    session.eval(PROMPT)


if __name__ == "__main__":
    alarm = Timer()
    signal.signal(signal.SIGALRM, alarm.on_signal)
    {"interrupted_answers": interrupted_answers, "interrupted_loads": interrupted_loads}[sys.argv[1]](
        sys.argv[2], alarm
    )
