"""An answer shown as the Markdown that models write: headings, lists, code, tables.

Owns showing it while it comes: what is complete is printed once, and the last part is drawn anew with every piece.
"""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment

_CODE_THEME = "ansi_dark"  # the terminal's own colours


class MarkdownText:
    """Shows one answer.

    Args:
        console: on stdout.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rest = ""
        self._begun = False
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)

    def write(self, text: str) -> None:
        """A part of the text."""
        self._rest += text
        n_lines = _complete_lines(self._rest)
        if n_lines:
            lines = self._rest.splitlines(keepends=True)
            self._print("".join(lines[:n_lines]))
            self._rest = "".join(lines[n_lines:])
        if self._console.is_terminal and self._rest.strip():
            self._live.start()
            self._live.update(_Part(self._rest, fits=True), refresh=True)

    def end(self) -> None:
        """Prints what is left."""
        self._print(self._rest)
        self._rest = ""

    def _print(self, text: str) -> None:
        self._live.update("", refresh=True)
        self._live.stop()
        if not text.strip():
            return
        if self._begun:
            self._console.print()
        self._begun = True
        self._console.print(_Part(text))


class _Part:
    """A part of the answer, without the empty lines that some parts bring; its last lines where all are too many.

    Args:
        text: Markdown.
        fits: show only what fits on the screen.
    """

    def __init__(self, text: str, fits: bool = False) -> None:
        self._text = text
        self._fits = fits

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(_markdown(self._text), options.update(height=None), pad=False)
        shown = [i for i, line in enumerate(lines) if any(segment.text.strip() for segment in line)]
        lines = lines[shown[0] : shown[-1] + 1] if shown else []
        for line in lines[-max(console.height - 2, 1) :] if self._fits else lines:
            yield from line
            yield Segment.line()


def _markdown(text: str) -> Markdown:
    # the address of a link is shown: it is a model's text
    return Markdown(text, code_theme=_CODE_THEME, hyperlinks=False)


def _complete_lines(text: str) -> int:
    """Lines before the last paragraph, list, table or code block, which may still grow."""
    begins = [token.map[0] for token in _markdown(text).parsed if token.level == 0 and token.map and token.nesting >= 0]
    return begins[-1] if begins else 0
