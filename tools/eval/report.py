"""What the answers come to: rows by task, length and method, as text, as JSON and as a picture.

Owns the figures of a row and how sure they are. Scores have a 95% Wilson interval; a speed-up is the median over
questions of the dense time to the first token divided by the method's, both from the same run. The picture has one
point for each method, as figure 5 of the LazyLLM paper; matplotlib is the extra ``[plot]`` and is imported when it is
drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
import numpy.typing as npt

from .kld import Divergence, summarize
from .methods import DENSE, Method
from .prompts import KLD
from .runner import Record

ALL_TASKS = "all"
Z_95 = 1.959963984540054
N_RESAMPLES = 2000
NOTES = (
    "score: mean, 95% Wilson interval; of dense: score / dense score; share: of the dense work of reading; "
    "speed-up: median of dense / method time to first token, same question and run; revived: rows per decode step"
)

_KINDS = {"keep": ("o", "tab:blue"), "dense": ("s", "black")}
_BASELINE = ("x", "tab:gray")
_HEAD = ("task", "length", "method", "n", "score", "95%", "of dense", "share", "ttft s", "speed-up", "revived")
_SOURCES_HEAD = ("sources", "length", "method", "right", "held", "95%")
_SOURCES_NOTES = (
    "right: answers with the full score; held: share of the sentences that answer which stand whole in a source"
)
_KLD_HEAD = ("kld", "length", "method", "n", "mean", "median", "99%", "max", "same top", "ppl", "of base", "share")

Values = npt.NDArray[np.float64]


def wilson(mean: float, n: int) -> tuple[float, float]:
    """The 95% Wilson interval of a mean of n scores in [0, 1].

    Exact in form for scores of 0 and 1; scores between vary less, so for them it is on the safe side. Unlike the normal
    and the bootstrap interval it has a width where all n scores are equal.
    """
    z2 = Z_95 * Z_95
    center = (mean + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(mean * (1 - mean) / n + z2 / (4 * n * n))
    return max(0.0, center - half), min(1.0, center + half)


def bootstrap(statistic: Callable[..., Any], *samples: Sequence[float]) -> tuple[float, float]:
    """The 95% percentile interval of a statistic of paired samples, from 2000 resamples that are always the same."""
    columns = [np.asarray(sample, np.float64) for sample in samples]
    n = len(columns[0])
    rng = np.random.default_rng(0)
    picks = rng.integers(0, n, (N_RESAMPLES, n))
    values = np.array([statistic(*[column[pick] for column in columns]) for pick in picks], np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return math.nan, math.nan
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def ratio_of_means(above: Values, below: Values) -> float:
    """Mean of one sample over that of another; NaN where the other is 0."""
    mean = float(below.mean())
    return float(above.mean()) / mean if mean else math.nan


@dataclass(frozen=True)
class Row:
    """The figures of one method at one task and length; None where there is nothing to compare with."""

    task: str
    length: str
    method: str
    n: int  # answers
    score: float  # their mean
    low: float  # low, high: its 95% interval
    high: float
    ratio: Optional[float]  # score divided by the dense score over the same questions
    ratio_low: Optional[float]  # ratio_low, ratio_high: its 95% bootstrap interval
    ratio_high: Optional[float]
    token_share: float  # mean
    ttft_s: float  # median
    speedup: Optional[float]  # median of dense / method time to the first token
    speedup_low: Optional[float]  # speedup_low, speedup_high: its 95% bootstrap interval
    speedup_high: Optional[float]
    revived: float  # tokens brought back per decode step


def make_rows(records: Sequence[Record], methods: Sequence[Method]) -> list[Row]:
    """A row for each task, length and method, and one over all tasks for each method where there are several."""
    scored = [record for record in records if "divergence" not in record]
    groups = _groups(scored)
    rows = [row for group in groups for row in _rows_of(group, scored, methods)]
    if len(groups) > 1:
        rows += _rows_of((ALL_TASKS, ""), scored, methods)
    return rows


def make_kld_rows(records: Sequence[Record], methods: Sequence[Method]) -> list[dict[str, Any]]:
    """The divergence figures of each length and method."""
    followed = [record for record in records if "divergence" in record]
    rows = []
    for _, length in _groups(followed):
        for method in methods:
            mine = [r for r in followed if r["length"] == length and r["method_id"] == method.digest]
            if mine:
                figures = summarize([Divergence(**record["divergence"]) for record in mine])
                share = float(np.mean([record["token_share"] for record in mine]))
                rows.append({"task": KLD, "length": length, "method": method.label, **figures, "token_share": share})
    return rows


@dataclass(frozen=True)
class SourceRow:
    """How often the sources of right answers hold what answers, of one method at one task and length."""

    task: str
    length: str
    method: str
    n: int  # right answers
    held: float  # mean share of the sentences that answer which stand whole in a source
    low: float  # low, high: its 95% interval
    high: float


def make_source_rows(records: Sequence[Record], methods: Sequence[Method]) -> list[SourceRow]:
    """A row for each task, length and method with right answers, and one over all for each method."""
    right = [record for record in records if "evidence_held" in record and record["score"] == 1]
    groups = _groups(right)
    rows = []
    for task, length in [*groups, (ALL_TASKS, "")] if len(groups) > 1 else groups:
        for method in methods:
            held = [
                record["evidence_held"]
                for record in right
                if record["method_id"] == method.digest
                and (task == ALL_TASKS or (record["task"], record["length"]) == (task, length))
            ]
            if held:
                mean = float(np.mean(held))
                rows.append(SourceRow(task, length, method.label, len(held), mean, *wilson(mean, len(held))))
    return rows


def to_text(rows: Sequence[Row], kld_rows: Sequence[dict[str, Any]], source_rows: Sequence[SourceRow] = ()) -> str:
    """The tables as text, and what the columns mean."""
    parts = []
    if rows:
        parts.append(f"{_aligned([_HEAD, *map(_cells, rows)])}\n{NOTES}")
    if source_rows:
        parts.append(f"{_aligned([_SOURCES_HEAD, *map(_source_cells, source_rows)])}\n{_SOURCES_NOTES}")
    if kld_rows:
        parts.append(_aligned([_KLD_HEAD, *map(_kld_cells, kld_rows)]))
    return "\n\n".join(parts) + "\n" if parts else "no answers\n"


def to_json(
    rows: Sequence[Row], kld_rows: Sequence[dict[str, Any]], source_rows: Sequence[SourceRow] = ()
) -> dict[str, Any]:
    """The tables as plain JSON values."""
    sources = {"sources": [asdict(row) for row in source_rows]} if source_rows else {}
    return {"interval": "wilson 95%", "rows": [asdict(row) for row in rows], **sources, KLD: list(kld_rows)}


def _groups(records: Iterable[Record]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((record["task"], record["length"]) for record in records))


def _rows_of(group: tuple[str, str], records: Sequence[Record], methods: Sequence[Method]) -> list[Row]:
    inside = [r for r in records if group[0] == ALL_TASKS or (r["task"], r["length"]) == group]
    dense = next((method.digest for method in methods if method.kind == DENSE), None)
    base = {_question(r): r for r in inside if r["method_id"] == dense}
    rows = []
    for method in methods:
        mine = [r for r in inside if r["method_id"] == method.digest]
        if mine:
            rows.append(_row(group, method.label, mine, base))
    return rows


def _row(group: tuple[str, str], label: str, mine: Sequence[Record], base: dict[Any, Record]) -> Row:
    score = float(np.mean([r["score"] for r in mine]))
    low, high = wilson(score, len(mine))
    pairs = [(r, base[_question(r)]) for r in mine if _question(r) in base]
    ratio = _with_interval(ratio_of_means, [r["score"] for r, _ in pairs], [b["score"] for _, b in pairs])
    speedups = [b["ttft_s"] / r["ttft_s"] for r, b in pairs if r["turn"] == b["turn"] and r["ttft_s"] > 0]
    speedup = _with_interval(np.median, speedups)
    n_steps = sum(r["n_steps"] for r in mine)
    return Row(
        *(*group, label, len(mine), score, low, high),
        *ratio,
        float(np.mean([r["token_share"] for r in mine])),
        float(np.median([r["ttft_s"] for r in mine])),
        *speedup,
        sum(r["revived"] for r in mine) / n_steps if n_steps else 0.0,
    )


def _question(record: Record) -> tuple[Any, ...]:
    return record["task"], record["length"], record["index"], record["prompt_hash"]


def _with_interval(
    statistic: Any, *samples: Sequence[float]
) -> tuple[Optional[float], Optional[float], Optional[float]]:
    """A statistic and its bootstrap interval; None for what cannot be told."""
    if not samples[0]:
        return None, None, None
    value = float(statistic(*[np.asarray(sample, np.float64) for sample in samples]))
    low, high = bootstrap(statistic, *samples)
    return _finite(value), _finite(low), _finite(high)


def _finite(value: float) -> Optional[float]:
    return value if math.isfinite(value) else None


def _cells(row: Row) -> tuple[str, ...]:
    return (
        *(row.task, row.length, row.method, str(row.n)),
        f"{row.score:.3f}",
        f"{row.low:.2f}-{row.high:.2f}",
        _shown(row.ratio, "{:.2f}"),
        f"{row.token_share:.2f}",
        f"{row.ttft_s:.2f}",
        _shown(row.speedup, "{:.2f}x"),
        f"{row.revived:.1f}",
    )


def _kld_cells(row: dict[str, Any]) -> tuple[str, ...]:
    figures = [f"{row[key]:.4f}" for key in ("kld_mean", "kld_median", "kld_99", "kld_max")]
    return (
        *("", row["length"], row["method"], str(row["n_tokens"]), *figures),
        f"{row['same_top']:.1%}",
        f"{row['ppl']:.3f}",
        f"{row['ppl_ratio']:.4f}",
        f"{row['token_share']:.2f}",
    )


def _source_cells(row: SourceRow) -> tuple[str, ...]:
    return row.task, row.length, row.method, str(row.n), f"{row.held:.3f}", f"{row.low:.2f}-{row.high:.2f}"


def _shown(value: Optional[float], form: str) -> str:
    return "-" if value is None else form.format(value)


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns; the first and third are names, flush left, the others numbers."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    out = []
    for line in lines:
        cells = [c.ljust(w) if i in (0, 2) else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths))]
        out.append("  ".join(cells).rstrip())
    return "\n".join(out)


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
