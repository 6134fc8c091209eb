"""The rows as tables: for a terminal, or as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, Optional

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lazygguf.cli.printable import printable

from .timing import Row, Spread

NONE = "-"
WIDE = 160  # columns, where stdout is no terminal and nothing has to fit

_SPEED = (
    "prompt",
    "keep",
    "TTFT s",
    "prefill s (min-max)",
    "prefill t/s (min-max)",
    "decode t/s (min-max)",
    "total s",
)
_WORK = ("prompt", "keep", "share", "ideal", "reached")
_DRAFT = ("draft s", "draft share")
_MEMORY = ("prompt", "keep", "KV MiB", "aux MiB", "peak MiB", "logits")
_PARTS = ("ttft", "decode", "total")


def print_tables(rows: list[Row], title: str, markdown: bool = False) -> None:
    """Prints the tables to stdout.

    Args:
        rows: of all lengths.
        title: what they were measured on.
        markdown: as Markdown, whole, whatever the terminal's width.
    """
    console = Console(highlight=False, markup=False, emoji=False)
    if markdown or not console.is_terminal:
        console = Console(highlight=False, markup=False, emoji=False, width=WIDE)
    console.print(Text(printable(title)), soft_wrap=True)
    for table in (speed_table(rows, markdown), ratio_table(rows, markdown), memory_table(rows, markdown)):
        with console.capture() as drawn:
            console.print(table)
        # rich pads every line, and draws edges of spaces above and below
        lines = "\n".join(line.rstrip() for line in drawn.get().splitlines())
        print("\n" + lines.strip("\n"))


def speed_table(rows: list[Row], markdown: bool = False) -> Table:
    """Times, medians first."""
    table = _table(_SPEED, markdown)
    for row in rows:
        table.add_row(
            *_names(row),
            _seconds(row.spread("ttft").median),
            _spread(row.spread("prefill"), _seconds),
            _spread(row.rate("prefill"), _rate),
            _spread(row.rate("decode"), _rate),
            _seconds(row.spread("total").median),
            end_section=not markdown and _ends_length(rows, row),
        )
    return table


def ratio_table(rows: list[Row], markdown: bool = False) -> Table:
    """Work done, and how many times faster than dense and llama.cpp."""
    against = [("dense", Row.ratio_dense)] if rows[0].dense is not None else []
    if rows[0].llama_cpp is not None:
        against.append(("llama.cpp", Row.ratio_llama_cpp))
    has_draft = any(row.draft_share for row in rows)
    titles = [*_WORK, *(_DRAFT if has_draft else ())]
    table = _table([*titles, *(f"TTFT, decode, total / {name}" for name, _ in against)], markdown)
    for row in rows:
        table.add_row(
            *_names(row),
            f"{row.token_share:.3f}",
            f"{row.ideal_speedup:.2f}x",
            NONE if row.reached is None else f"{row.reached:.0%}",
            *(_draft(row) if has_draft else ()),
            *("  ".join(_times(ratio(row, part)) for part in _PARTS) for _, ratio in against),
            end_section=not markdown and _ends_length(rows, row),
        )
    return table


def memory_table(rows: list[Row], markdown: bool = False) -> Table:
    """Bytes held, and the logits' hash."""
    table = _table(_MEMORY, markdown)
    for row in rows:
        last = row.samples[-1]
        table.add_row(
            *_names(row),
            *(_mib(n) for n in (last.kv_bytes, last.aux_bytes, row.peak_bytes)),
            row.logits_hash,
            end_section=not markdown and _ends_length(rows, row),
        )
    return table


def _table(titles: Sequence[str], markdown: bool) -> Table:
    table = Table(box=box.MARKDOWN if markdown else box.SIMPLE_HEAD, header_style="bold", pad_edge=markdown)
    for title in titles:
        table.add_column(title, justify="left" if title in ("keep", "logits") else "right", overflow="fold")
    return table


def _names(row: Row) -> tuple[str, str]:
    return f"{row.n_prompt:,}", printable(row.contender.label)


def _draft(row: Row) -> tuple[str, str]:
    """Seconds of the draft, and its work as a share of the dense work."""
    if not row.draft_share:
        return NONE, NONE
    return _seconds(row.spread("draft").median), f"{row.draft_share:.3f}"


def _ends_length(rows: list[Row], row: Row) -> bool:
    return row is next(other for other in reversed(rows) if other.n_prompt == row.n_prompt)


def _spread(values: Spread, shown: Callable[[float], str]) -> str:
    median, least, most = (shown(value) for value in values)
    return f"{median} ({least}-{most})"


def _seconds(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _rate(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _times(value: Optional[float]) -> str:
    return NONE if value is None else f"{value:.2f}x"


def _mib(n: Optional[int]) -> str:
    return NONE if n is None else f"{n / 2**20:,.1f}"
