"""The progress bar of the tools, on stderr; silent where stderr is no terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Callable

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


@contextlib.contextmanager
def byte_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over bytes; call the result with the bytes of each piece."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total)
        yield lambda n: bar.update(task, advance=n)


@contextlib.contextmanager
def step_bar(title: str, unit: str = "tensors") -> Iterator[Callable[[int, int], None]]:
    """A bar over steps; call the result with the steps done and their number.

    Args:
        title: what is being done.
        unit: what is counted.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn(f"{{task.completed}}/{{task.total}} {unit}"),
    )
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
