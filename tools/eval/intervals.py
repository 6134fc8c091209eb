"""How sure a figure is.

Owns the Wilson interval of a mean score and bootstrap intervals of ratios; nothing of tasks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Callable

import numpy as np
import numpy.typing as npt

Z_95 = 1.959963984540054
N_RESAMPLES = 2000

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
