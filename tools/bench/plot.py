"""The time to the first token against the prompt's length, as a PNG. Needs the extra ``[plot]`` (matplotlib)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .contenders import IK, LAZYGGUF, LLAMA_CPP
from .timing import Row

# Okabe and Ito's colours, told apart by colour-blind readers and in grey
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_GREY = "#666666"
_STYLES = {LAZYGGUF: ("-", "o"), LLAMA_CPP: ("--", "s"), IK: (":", "^")}  # line and marker


def write_plot(rows: list[Row], path: Path, title: str, subtitle: str) -> None:
    """Writes the plot: one line a contender, medians, with the least and the most time as bars."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.8), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    lines = [
        _draw(axes, [row for row in rows if row.contender.label == label], i)
        for i, label in enumerate(dict.fromkeys(row.contender.label for row in rows))
    ]
    lengths = sorted({row.n_prompt for row in rows})
    axes.set_xticks(lengths, [f"{n:,}" for n in lengths])
    axes.set_xlim(0, lengths[-1] * 1.04)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("prompt length (tokens)")
    axes.set_ylabel("time to first token (seconds)")
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    heading = f"keep schedule (speed-up over dense at {lengths[-1]:,} tokens)"
    axes.legend(handles=lines, frameon=False, title=heading, alignment="left", loc="upper left")
    figure.suptitle(title, x=0.02, ha="left", fontsize=12, fontweight="bold")
    axes.set_title(subtitle, loc="left", fontsize=9, color=_GREY)
    figure.savefig(path, format="png")


def _draw(axes: Any, rows: list[Row], i: int) -> Any:
    """One contender's line, for the legend without its bars; those of other engines are grey and broken."""
    spreads = [row.spread("ttft") for row in rows]
    medians = [spread.median for spread in spreads]
    errors = [[s.median - s.least for s in spreads], [s.most - s.median for s in spreads]]
    engine = rows[0].contender.engine
    line_style, marker = _STYLES[engine]
    drawn = axes.errorbar(
        [row.n_prompt for row in rows],
        medians,
        yerr=errors,
        color=_COLOURS[(i - 1) % len(_COLOURS)] if engine == LAZYGGUF else _GREY,
        linestyle=line_style,
        marker=marker,
        markersize=4.5,
        linewidth=1.8,
        capsize=3,
    )
    line = drawn.lines[0]
    line.set_label(_legend(rows[-1]))
    return line


def _legend(last: Row) -> str:
    name = {"off": "off (dense)"}.get(last.contender.label, last.contender.label)
    ratio = last.ratio_dense("ttft")
    return name if ratio is None or last.contender.is_dense else f"{name}   {ratio:.2f}x"
