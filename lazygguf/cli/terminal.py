"""What a person sees: the answer on stdout, everything else on stderr.

Owns the progress bar, the footer, notes and colours (``rich``), and making Ctrl-C stop a long read at once.
It knows nothing of models beyond ``Stats`` and a ``cancel`` function.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Callable, NamedTuple, Optional, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn
from rich.table import Table

from ..read.stats import Stats
from ..worker import Worker
from .document import FoundSource
from .printable import printable
from .streams import replaced_note, write_stdout
from .word_wrap import WordWrap

_WIDTH = 80  # of a terminal that does not say it
_WIDE = 60  # columns from which the bar leaves room for the counts

READING, SKIMMING = "reading", "skimming"


class ReadingBar(NamedTuple):
    """Moves the bar: ``read`` while the model reads, ``draft`` while its draft does, before that."""

    read: Callable[[int, int], None]
    draft: Callable[[int, int], None]


class AnswerText(Protocol):
    """Where an answer goes, piece by piece."""

    def write(self, text: str) -> None: ...
    def end(self) -> None: ...


class PlainText:
    """The answer as it is."""

    def write(self, text: str) -> None:
        """A part of it, at once."""
        write_stdout(text)

    def end(self) -> None:
        """Ends its last line."""
        write_stdout("\n")


class Screen:
    """Writes for one run of a command.

    Args:
        color: ``"on"``, ``"off"`` or ``"auto"`` (on a terminal, unless NO_COLOR is set).
        timings: show the footer.
        wordwrap: break the lines of an answer between words, on a terminal.
        markdown: show the answer as Markdown: ``"on"``, ``"off"`` or ``"auto"`` (on a terminal).

    Attributes:
        wordwrap: as above, for the next answer.
        markdown: as above, for the next answer.
    """

    def __init__(self, color: str = "auto", timings: bool = True, wordwrap: bool = True, markdown: str = "off") -> None:
        self.timings = timings
        self.wordwrap = wordwrap
        self.markdown = markdown
        self._color = color
        self._console = self._make_console(stderr=True)
        self._terminal = sys.stdout.isatty()
        self._answer: Optional[AnswerText] = None

    def _make_console(self, stderr: bool) -> Console:
        shown = (sys.stderr if stderr else sys.stdout).isatty()
        return Console(
            stderr=stderr,
            highlight=False,
            markup=False,
            soft_wrap=not shown,  # a terminal would break words
            no_color={"on": False, "off": True}.get(self._color),
            force_terminal=True if self._color == "on" and shown else None,
        )

    def answer(self, text: str) -> None:
        """A part of the answer, at once."""
        if self._answer is None:
            self._answer = self._begin_answer()
        self._answer.write(printable(text) if self._terminal else text)

    def end_answer(self) -> None:
        """Ends the answer's last line."""
        answer, self._answer = self._answer or self._begin_answer(), None
        answer.end()
        note = replaced_note()
        if note is not None:
            self.note(f"({note})")

    def _begin_answer(self) -> AnswerText:
        if self.markdown == "on" or (self.markdown == "auto" and self._terminal):
            from .markdown import MarkdownText  # takes a while to import

            return MarkdownText(self._make_console(stderr=False))
        if self.wordwrap and self._terminal and os.environ.get("TERM") not in ("dumb", "unknown"):
            return WordWrap(write_stdout, terminal_width)
        return PlainText()

    def note(self, text: str) -> None:
        """A line beside the answer."""
        self._console.print(text, style="dim")

    def table(self, rows: Iterable[tuple[str, str]]) -> None:
        """Names and what they mean, beside the answer."""
        grid = Table.grid("", "", padding=(0, 2))
        for name, meaning in rows:
            grid.add_row(name, meaning)
        self._console.print(grid, style="dim")

    def error(self, text: str) -> None:
        """An error that does not end the program."""
        self._console.print(f"error: {text}", style="red")

    def sources(self, found: Sequence[FoundSource]) -> None:
        """The passages that an answer leaned on, beside it."""
        if not found:
            self.note("(no passage of the text stands out)")
        for i, (source, place, turn) in enumerate(found, start=1):
            lines = place or source
            where = f"turn {turn}" if place is None else printable(place.name)
            text = printable(" ".join(source.text.split()))
            self.note(f"{i}. {where}, {line_range(lines.first_line, lines.last_line)} ({source.score:.0%}): {text}")

    def footer(self, stats: Stats) -> None:
        """Counts and times of an answer, where they are wanted."""
        if self.timings:
            self._console.print(f"[ {describe(stats)} ]", style="dim")

    @contextlib.contextmanager
    def reading(self) -> Iterator[ReadingBar]:
        """Shows that the prompt is being read; gives what moves the bar."""
        counts = (MofNCompleteColumn(), TextColumn("tokens")) if self._console.width >= _WIDE else ()
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description} prompt"),
            BarColumn(),
            *counts,
            TaskProgressColumn(),
        )
        shown = self._console.is_terminal
        with Progress(*columns, console=self._console, transient=True, disable=not shown) as bar:
            task = bar.add_task(READING, total=None)

            def move(what: str, n_done: int, n_total: int) -> None:
                bar.update(task, description=what, completed=n_done, total=n_total)

            yield ReadingBar(read=partial(move, READING), draft=partial(move, SKIMMING))


def terminal_width() -> int:
    """Columns of the terminal that stdout is."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or _WIDTH
    except (OSError, ValueError):
        return _WIDTH


def line_range(first: int, last: int) -> str:
    """Lines as a person reads them."""
    return f"line {first}" if first == last else f"lines {first}-{last}"


def describe(stats: Stats) -> str:
    """The footer's text: tokens read, computed share, what the draft did, first token's time, tokens per second."""
    n_read = stats.n_prompt - stats.n_reused
    parts = [f"{n_read:,} tokens read" + (f" ({stats.n_reused:,} reused)" if stats.n_reused else "")]
    if n_read:
        parts.append(f"{stats.token_share:.0%} computed")
    if stats.n_draft:
        more = f", {stats.second_look} on a second look" if stats.second_look else ""
        parts.append(f"{stats.skim_share:.0%} only skimmed in {stats.draft_s:.2f} s{more}")
    parts.append(f"first token {stats.ttft_s:.2f} s")
    parts.append(f"{stats.decode_tps:.1f} tokens/s")
    return " | ".join(parts)


@contextlib.contextmanager
def interrupt_cancels(cancel: Callable[[], None]) -> Iterator[None]:
    """Makes Ctrl-C call ``cancel`` at once, even while the main thread is inside C.

    Python runs its own signal handlers only between bytecodes; a long native step would have to end before.
    The signal's wakeup file descriptor is written right away, and a thread that waits on it cancels.
    KeyboardInterrupt follows as usual. Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting, waking = socket.socketpair()
    waking.setblocking(False)
    watcher = Worker(lambda: _watch(waiting, cancel))
    before: Optional[int] = None
    try:
        before = signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
        watcher.start()
        yield
    finally:
        if before is not None:
            signal.set_wakeup_fd(before)
        waking.close()  # ends the watcher
        watcher.stop()
        waiting.close()


def _watch(waiting: socket.socket, cancel: Callable[[], None]) -> None:
    while True:
        numbers = waiting.recv(64)
        if not numbers:
            return
        if signal.SIGINT in numbers:
            cancel()
