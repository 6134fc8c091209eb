"""What a draft's scores want of a prompt: how many tokens, and none that stand alone.

Owns the count at a point before layer 0, as the native core selects there, and the rule against fragments. Numbers in,
numbers out; it knows nothing of sessions.
"""

from __future__ import annotations

from typing import Optional

import numpy as np
import numpy.typing as npt

from ..schedule.keep_schedule import PruningPoint

Floats = npt.NDArray[np.float32]

MIN_RUN = 16  # tokens, some half of a sentence
_MAX_ROUNDS = 8  # what takes a fragment's place may be one
_DEMOTED = np.float32(0.01)


def n_wanted(scores: Floats, point: Optional[PruningPoint]) -> int:
    """How many tokens go on at the point before layer 0, by scores (n_tokens,); those of inf in any case."""
    if point is None:
        return len(scores)
    most = int(point.keep * len(scores))
    others = np.sort(scores[np.isfinite(scores)])[::-1]
    if point.mass >= 1.0 or not len(others):
        return most
    held = np.cumsum(others, dtype=np.float64)
    n_best = int(np.isposinf(scores).sum()) + int(np.searchsorted(held, point.mass * held[-1])) + 1
    return min(max(n_best, int(point.keep_min * len(scores))), most)


def without_fragments(scores: Floats, point: Optional[PruningPoint]) -> Floats:
    """The scores with those lowered that would let in fewer than ``MIN_RUN`` tokens in a row.

    The end of a sentence without its begin ("is: 7415288") says nothing, and small models take it for an answer. What
    is always read (inf) makes no fragment, nor does what stands beside it.

    Args:
        scores: (n_tokens,), not below 0; inf for what is read in any case.
        point: the one before layer 0; None: all go on.
    """
    n_best = n_wanted(scores, point) - int(np.isposinf(scores).sum())
    if n_best < MIN_RUN or n_best >= np.isfinite(scores).sum():
        return scores
    for _ in range(_MAX_ROUNDS):
        fragments = _fragments(scores, n_wanted(scores, point))
        if not fragments.any():
            break
        scores = np.where(fragments, scores * _DEMOTED, scores)
    return scores


def _fragments(scores: Floats, n_kept: int) -> npt.NDArray[np.bool_]:
    """(n_tokens,), the best tokens that stand in short runs."""
    is_kept = np.isposinf(scores)
    is_kept[np.argsort(-scores, kind="stable")[:n_kept]] = True
    edges = np.flatnonzero(np.diff(np.pad(is_kept, 1).astype(np.int8)))
    found = np.zeros(len(scores), np.bool_)
    for begin, end in zip(edges[::2], edges[1::2]):
        found[begin:end] = end - begin < MIN_RUN and not np.isposinf(scores[begin:end]).any()
    return found
