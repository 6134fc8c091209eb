"""The rows as tables: for a terminal, or as Markdown."""

from __future__ import annotations

from typing import Callable, Optional

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lazygguf.cli.printable import printable

from .timing import Row, Spread

Column = tuple[str, Callable[[Row], str]]  # its title, and what it shows of a row

NONE = "-"
WIDE = 160  # columns, where stdout is no terminal and nothing has to fit

_LEFT = ("keep", "logits")  # columns of text
_PARTS = ("ttft", "decode", "total")


def print_tables(rows: list[Row], title: str, markdown: bool = False) -> None:
    """Prints the tables to stdout; as Markdown they are whole, whatever the terminal's width."""
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
    columns: list[Column] = [
        ("TTFT s", lambda row: _seconds(row.spread("ttft").median)),
        ("prefill s (min-max)", lambda row: _spread(row.spread("prefill"), _seconds)),
        ("prefill t/s (min-max)", lambda row: _spread(row.rate("prefill"), _rate)),
        ("decode t/s (min-max)", lambda row: _spread(row.rate("decode"), _rate)),
        ("total s", lambda row: _seconds(row.spread("total").median)),
    ]
    return _table(rows, columns, markdown)


def ratio_table(rows: list[Row], markdown: bool = False) -> Table:
    """Work done, and how many times faster than dense and llama.cpp."""
    columns: list[Column] = [
        ("share", lambda row: f"{row.token_share:.3f}"),
        ("ideal", lambda row: f"{row.ideal_speedup:.2f}x"),
        ("reached", lambda row: NONE if row.reached is None else f"{row.reached:.0%}"),
    ]
    if any(row.draft_share for row in rows):
        columns += [
            ("draft s", lambda row: _seconds(row.spread("draft").median) if row.draft_share else NONE),
            ("draft share", lambda row: f"{row.draft_share:.3f}" if row.draft_share else NONE),
        ]
    if rows[0].dense is not None:
        columns.append(("TTFT, decode, total / dense", lambda row: _ratios(row.ratio_dense)))
    if rows[0].llama_cpp is not None:
        columns.append(("TTFT, decode, total / llama.cpp", lambda row: _ratios(row.ratio_llama_cpp)))
    if rows[0].ik is not None:
        columns.append(("TTFT, decode, total / ik", lambda row: _ratios(row.ratio_ik)))
    return _table(rows, columns, markdown)


def memory_table(rows: list[Row], markdown: bool = False) -> Table:
    """Bytes held, and the logits' hash."""
    columns: list[Column] = [
        ("KV MiB", lambda row: _mib(row.samples[-1].kv_bytes)),
        ("aux MiB", lambda row: _mib(row.samples[-1].aux_bytes)),
        ("peak MiB", lambda row: _mib(row.peak_bytes)),
        ("logits", lambda row: row.logits_hash),
    ]
    return _table(rows, columns, markdown)


def _table(rows: list[Row], columns: list[Column], markdown: bool) -> Table:
    """The columns after those that name a row; a line ends each length on a terminal."""
    table = Table(box=box.MARKDOWN if markdown else box.SIMPLE_HEAD, header_style="bold", pad_edge=markdown)
    names: list[Column] = [
        ("prompt", lambda row: f"{row.n_prompt:,}"),
        ("keep", lambda row: printable(row.contender.label)),
    ]
    for title, _ in names + columns:
        table.add_column(title, justify="left" if title in _LEFT else "right", overflow="fold")
    for row, following in zip(rows, [*rows[1:], None]):
        ends_length = following is None or following.n_prompt != row.n_prompt
        table.add_row(*(cell(row) for _, cell in names + columns), end_section=ends_length and not markdown)
    return table


def _ratios(ratio: Callable[[str], Optional[float]]) -> str:
    return "  ".join(_times(ratio(part)) for part in _PARTS)


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
