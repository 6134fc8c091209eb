"""What the answers come to: rows by task, length and method, as text and as JSON.

Owns the figures of a row. Scores have a 95% Wilson interval; a speed-up is the median over questions of the dense
time to the first token divided by the method's, both from the same run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Optional

import numpy as np

from .intervals import bootstrap, ratio_of_means, wilson
from .kld import Divergence, summarize
from .methods import DENSE, Method
from .questions import KLD
from .records import Record

ALL_TASKS = "all"
NOTES = (
    "score: mean, 95% Wilson interval; of dense: score / dense score; share: of the dense work of reading; "
    "speed-up: median of dense / method time to first token, same question and run; revived: rows per decode step"
)

_HEAD = ("task", "length", "method", "n", "score", "95%", "of dense", "share", "ttft s", "speed-up", "revived")
_KLD_HEAD = ("kld", "length", "method", "n", "mean", "median", "99%", "max", "same top", "ppl", "of base", "share")


@dataclass(frozen=True)
class Row:
    """The figures of one method at one task and length; None where there is nothing to compare with.

    Attributes:
        n: answers.
        score: their mean.
        low, high: its 95% interval.
        ratio: score divided by the dense score over the same questions.
        ratio_low, ratio_high: its 95% bootstrap interval.
        token_share: mean.
        ttft_s: median.
        speedup: median of dense / method time to the first token.
        speedup_low, speedup_high: its 95% bootstrap interval.
        revived: tokens brought back per decode step.
    """

    task: str
    length: str
    method: str
    n: int
    score: float
    low: float
    high: float
    ratio: Optional[float]
    ratio_low: Optional[float]
    ratio_high: Optional[float]
    token_share: float
    ttft_s: float
    speedup: Optional[float]
    speedup_low: Optional[float]
    speedup_high: Optional[float]
    revived: float


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


def to_text(rows: Sequence[Row], kld_rows: Sequence[dict[str, Any]]) -> str:
    """Both tables as text, and what the columns mean."""
    parts = []
    if rows:
        parts.append(f"{_aligned([_HEAD, *map(_cells, rows)])}\n{NOTES}")
    if kld_rows:
        parts.append(_aligned([_KLD_HEAD, *map(_kld_cells, kld_rows)]))
    return "\n\n".join(parts) + "\n" if parts else "no answers\n"


def to_json(rows: Sequence[Row], kld_rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Both tables as plain JSON values."""
    return {"interval": "wilson 95%", "rows": [asdict(row) for row in rows], KLD: list(kld_rows)}


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
