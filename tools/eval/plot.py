"""Quality against speed: one point for each method, as in figure 5 of the LazyLLM paper.

Owns the picture; matplotlib is the extra ``[plot]`` and is imported when it is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Optional

from .table import ALL_TASKS, Row

_KINDS = {"keep": ("o", "tab:blue"), "dense": ("s", "black")}
_BASELINE = ("x", "tab:gray")


def plotted(rows: Sequence[Row]) -> list[Row]:
    """The rows over all tasks that have a speed-up and a quality; where there is only one task, its rows."""
    overall = [row for row in rows if row.task == ALL_TASKS] or list(rows)
    return [row for row in overall if row.speedup is not None and row.ratio is not None]


def draw(path: Path, rows: Sequence[Row], kinds: dict[str, str], title: str) -> None:
    """Draws a point for each of ``plotted(rows)``, in the colour of its kind of method."""
    figure: Any = import_module("matplotlib.figure").Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for row in plotted(rows):
        marker, color = _KINDS.get(kinds.get(row.method, ""), _BASELINE)
        axes.errorbar(
            row.speedup,
            row.ratio,
            xerr=_arms(row.speedup, row.speedup_low, row.speedup_high),
            yerr=_arms(row.ratio, row.ratio_low, row.ratio_high),
            fmt=marker,
            color=color,
            capsize=3,
        )
        axes.annotate(row.method, (row.speedup, row.ratio), textcoords="offset points", xytext=(6, 6), fontsize=8)
    axes.margins(x=0.25, y=0.1)  # room for the names
    axes.axhline(1.0, color="black", linewidth=0.5, linestyle=":")
    axes.set_xlabel("time to first token, speed-up over dense")
    axes.set_ylabel("score / dense score")
    axes.set_title(title)
    figure.savefig(path)


def _arms(value: Optional[float], low: Optional[float], high: Optional[float]) -> Any:
    """Lengths of an error bar's two arms; None without an interval."""
    if value is None or low is None or high is None:
        return None
    return [[max(0.0, value - low)], [max(0.0, high - value)]]
