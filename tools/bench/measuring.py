"""The whole benchmark: memory first, then every prompt length with all contenders in turn.

A process's peak of memory never falls, and several models live in the process that measures time. So each peak is that
of a fresh process that does nothing else, and they come first, while this process holds no model yet. A peak is the
resident set: mapped weights count, and memory of a GPU does not.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable

from lazygguf.cli.terminal import interrupt_cancels
from lazygguf.errors import LazyError

from ..child_process import child_command
from .contenders import IK, Contender
from .engines import AnyEngine, Settings, open_engines
from .text import Script, script
from .timing import Row, interleave, make_rows, measure

OnTurn = Callable[[str], None]
Peaks = dict[Contender, int]

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    path: str  # the model
    contenders: Sequence[Contender]  # the rows of each length, in turn
    text: Sequence[int]  # tokens of the longest prompt and those after it
    lengths: Sequence[int]
    n_gen: int  # tokens read one at a time after each prompt
    repeats: int  # runs that count
    settings: Settings  # of every engine
    with_memory: bool = True  # measure peak memory too
    question: Sequence[int] = ()  # tokens at the end of every prompt; empty for none

    def script(self, n_prompt: int) -> Script:
        """What is read at this length."""
        return script(self.text, self.question, n_prompt, self.n_gen)

    @property
    def n_turns(self) -> int:
        """Runs in all, warm-ups and those of memory included."""
        return len(self.lengths) * len(self.contenders) * (self.repeats + 1 + self.with_memory)


def run_plan(plan: Plan, on_turn: OnTurn = lambda what: None) -> Iterator[list[Row]]:
    """Gives the rows of each prompt length as soon as it is complete; tells ``on_turn`` before each run what comes.

    Raises:
        KeyboardInterrupt, Cancelled: Ctrl-C, at once in lazygguf and after an ubatch in llama.cpp.
    """
    peaks = _peaks(plan, on_turn)

    def cancel() -> None:
        for engine in engines.values():
            engine.cancel()

    settings = replace(plan.settings, n_ctx=max(plan.lengths) + plan.n_gen)
    with open_engines(plan.path, plan.contenders, settings) as engines, interrupt_cancels(cancel):
        for n_prompt in plan.lengths:
            yield _measure_length(plan, n_prompt, engines, peaks.get(n_prompt, {}), on_turn)


def _measure_length(
    plan: Plan, n_prompt: int, engines: dict[Contender, AnyEngine], peaks: Peaks, on_turn: OnTurn
) -> list[Row]:
    test_time = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")

    def on_contender(contender: Contender) -> None:
        on_turn(f"{n_prompt:,} tokens, {contender.label}")

    samples = interleave(engines, plan.script(n_prompt), plan.repeats, on_contender)
    return make_rows(samples, n_prompt, plan.n_gen, peaks, test_time)


def _peaks(plan: Plan, on_turn: OnTurn) -> dict[int, Peaks]:
    """Peak bytes by prompt length and contender; empty without memory."""
    peaks: dict[int, Peaks] = {}
    for n_prompt in plan.lengths if plan.with_memory else ():
        settings = replace(plan.settings, n_ctx=n_prompt + plan.n_gen)
        peaks[n_prompt] = {}
        for contender in plan.contenders:
            on_turn(f"{n_prompt:,} tokens, {contender.label}, memory")
            peaks[n_prompt][contender] = peak_bytes(plan.path, contender, settings, plan.script(n_prompt))
    return peaks


def peak_bytes(path: str, contender: Contender, settings: Settings, script: Script) -> int:
    """Peak resident bytes of a process that opens the model, reads the prompt and the tokens after it.

    Raises:
        LazyError: the process failed; its last line says why.
    """
    job = {
        "path": path,
        "contender": contender.to_dict(),
        "settings": asdict(settings),
        "script": script._asdict(),
    }
    done = subprocess.run(child_command(__name__), input=json.dumps(job), capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise LazyError(f"measuring the memory of {contender.label} failed: {last} (--no-memory skips it)")
    return int(done.stdout.splitlines()[-1])


def main() -> int:
    """The child: a job as JSON on stdin, the peak on stdout."""
    job: dict[str, Any] = json.load(sys.stdin)
    contender = Contender.from_dict(job["contender"])
    with open_engines(job["path"], [contender], Settings(**job["settings"])) as engines:
        measure(engines[contender], Script(**job["script"]))
        own = own_peak_bytes()
    # a peer is a process of its own, which has ended here
    print(_max_rss(resource.RUSAGE_CHILDREN) if contender.engine == IK else own)
    return 0


def own_peak_bytes() -> int:
    """Peak resident bytes of this process.

    Linux's ru_maxrss begins at the size of the process that started this one, hence VmHWM where there is one.
    """
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return _max_rss(resource.RUSAGE_SELF)


def _max_rss(who: int) -> int:
    peak = resource.getrusage(who).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
