"""The progress bars of the tools, on stderr; silent where stderr is no terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Callable

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


def say(line: str) -> None:
    """A line on stderr, where no bar is shown."""
    print(line, file=sys.stderr)


def _bar(*columns: ProgressColumn) -> Progress:
    console = Console(stderr=True)
    return Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)


@contextlib.contextmanager
def byte_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over bytes; call the result with the bytes of each piece."""
    with _bar(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()) as bar:
        task = bar.add_task(title, total=total)
        yield lambda n: bar.update(task, advance=n)


@contextlib.contextmanager
def step_bar(title: str, unit: str = "tensors") -> Iterator[Callable[[int, int], None]]:
    """A bar over steps; call the result with the units done and their number."""
    count = TextColumn(f"{{task.completed}}/{{task.total}} {unit}")
    with _bar(TextColumn("{task.description}"), BarColumn(), count) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class Turns:
    """Moves a bar of runs: call it with what comes next."""

    def __init__(self, bar: Progress, n_turns: int) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=n_turns)
        self._n_begun = 0

    def __call__(self, what: str) -> None:
        self._bar.update(self._task, description=what, completed=self._n_begun)
        self._n_begun += 1

    def say(self, line: str) -> None:
        """A line above the bar, also where there is no terminal."""
        self._bar.console.print(line, highlight=False, markup=False)


@contextlib.contextmanager
def turn_bar(n_turns: int) -> Iterator[Turns]:
    """A bar over runs that take long: what is running, and how many are done."""
    count = TextColumn("{task.completed}/{task.total} runs")
    with _bar(TextColumn("{task.description}", markup=False), BarColumn(), count) as bar:
        yield Turns(bar, n_turns)
