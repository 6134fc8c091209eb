"""Scores: how much each token matters, numbers by position.

Owns pooling, as the native core pools where all tokens are live.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float32]  # (n_tokens,)


class PromptAttention(NamedTuple):
    """How much a prompt's tokens were attended to.

    Attributes:
        scores: (n_prompt,), not below 0.
        pool: tokens over which they are averaged before they are compared: an answer mostly stands beside the words
            that are attended to.
    """

    scores: Scores
    pool: int


def pooled(scores: npt.NDArray[Any], before: int, after: int) -> npt.NDArray[np.float64]:
    """Each score replaced by the mean of itself, those ``before`` it and those ``after`` it, as far as there are.

    Args:
        scores: (..., n_tokens).
        before: how many positions before each one.
        after: how many after it.
    """
    n_tokens = scores.shape[-1]
    places = np.arange(n_tokens)
    begin, end = np.maximum(places - before, 0), np.minimum(places + after + 1, n_tokens)
    zero = np.zeros((*scores.shape[:-1], 1))
    total = np.concatenate([zero, np.cumsum(scores, axis=-1, dtype=np.float64)], axis=-1)
    return np.asarray((total[..., end] - total[..., begin]) / (end - begin))
