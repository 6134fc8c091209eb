"""What a draft's scores ask to be read: the choice, what must be read again because of it, and the second look.

Numbers and masks in, positions out; it knows nothing of sessions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np
import numpy.typing as npt

from .._ffi import count_kept, keep_count
from ..schedule.keep_schedule import PruningPoint

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]

MIN_RUN = 16  # tokens, about half a sentence
_MAX_ROUNDS = 8  # what takes a fragment's place may be a fragment itself
_LOWERED = np.float32(0.01)
_REACH = 32  # tokens after a gap that are read again
_STRIDE = 8  # tokens read beyond an edge of a gap


# ---- what is wanted ------------------------------------------------------------------------------------------------


def n_wanted(scores: Floats, point: Optional[PruningPoint]) -> int:
    """How many tokens go on at the point before layer 0, as the native core counts them.

    Args:
        scores: (n_tokens,), inf for what is read in any case.
        point: None: all go on.
    """
    return len(scores) if point is None else count_kept(scores, point.keep, point.keep_min, point.mass)


def wanted_tokens(scores: Floats, point: Optional[PruningPoint]) -> Mask:
    """(n_tokens,): the best tokens by their scores, and those that are read in any case."""
    return _best(scores, n_wanted(scores, point))


def without_fragments(scores: Floats, point: Optional[PruningPoint]) -> Floats:
    """The scores with those lowered that would let in fewer than ``MIN_RUN`` tokens in a row.

    Small models take the end of a sentence without its begin ("is: 7415288") for an answer. What is read in any case
    (inf) is no fragment, and neither is what stands beside it.

    Args:
        scores: (n_tokens,), not below 0; inf for what is read in any case.
        point: the one before layer 0; None: all go on.
    """
    n_best = n_wanted(scores, point) - int(np.isposinf(scores).sum())
    if n_best < MIN_RUN or n_best >= np.isfinite(scores).sum():
        return scores
    for _ in range(_MAX_ROUNDS):
        fragments = _fragments(scores, wanted_tokens(scores, point))
        if not fragments.any():
            break
        scores = np.where(fragments, scores * _LOWERED, scores)
    return scores


def _best(scores: Floats, n: int) -> Mask:
    is_best = np.isposinf(scores)
    is_best[np.argsort(-scores, kind="stable")[:n]] = True
    return is_best


def _fragments(scores: Floats, is_kept: Mask) -> Mask:
    """(n_tokens,), the kept tokens that stand in short runs."""
    edges = np.flatnonzero(np.diff(np.pad(is_kept, 1).astype(np.int8)))
    begins, ends = edges[::2], edges[1::2]
    n_always = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.isposinf(scores))])  # before each place
    is_fragment = (ends - begins < MIN_RUN) & (n_always[ends] == n_always[begins])
    found = np.zeros(len(scores), np.bool_)
    found[is_kept] = np.repeat(is_fragment, ends - begins)
    return found


# ---- what must be read again ---------------------------------------------------------------------------------------


def stale_tokens(wanted: Mask, is_read: Mask) -> Positions:
    """Positions that were read without tokens that are read before them now.

    A token's K and V depend on the tokens before it. A token that was read beside an unread gap does not know what
    stands in the gap: the second digit of a number does not know the first one, and an answer that copies the number
    breaks off there.

    Args:
        wanted: (n_tokens,) what is to be read.
        is_read: (n_tokens,) what is read already.

    Returns:
        Wanted positions that are read already and stand in one run of wanted tokens with one that is not, up to 32
        tokens after it; ascending.
    """
    fresh = wanted & ~is_read
    n_fresh = np.cumsum(fresh)
    before_run = np.maximum.accumulate(np.where(wanted, 0, n_fresh))  # fresh ones up to the last token not wanted
    places = np.arange(len(wanted))
    last_fresh = np.maximum.accumulate(np.where(fresh, places, -_REACH - 1))
    near = (n_fresh > before_run) & (places - last_fresh <= _REACH)
    return np.flatnonzero(wanted & is_read & near)


# ---- the second look -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SecondLook:
    """When to read more than the draft chose, and how much.

    Attributes:
        share: of the tokens in the context that may be read on top; 0 never reads more.
        max_entropy: of the first token's distribution, in nats; above it the model does not know what to say. It is
            high: up to 3.2 were seen before right answers, and what is read then may mislead a small model.
        max_edge: how much more attention than other tokens the edges of unread gaps may get.
    """

    share: float = 0.05
    max_entropy: float = 4.0
    max_edge: float = 1.5

    def n_most(self, n_tokens: int) -> int:
        """Tokens that may be read on top."""
        return keep_count(self.share, n_tokens)


@dataclass(frozen=True)
class FirstLook:
    """What was read at first, and what the model made of it.

    Attributes:
        logits: (n_vocab,) of the first token of the answer.
        is_read: (n_tokens,) tokens that were read.
        scores: (n_tokens,) the draft's; NaN and inf are not compared.
        attention: (n_tokens,) what the question looks at, at the first pruning point that scored, NaN where there is
            none; None where nothing was scored.
        is_content: (n_tokens,) tokens that are neither the question nor read in any case.
    """

    logits: Floats
    is_read: Mask
    scores: Floats
    attention: Optional[Floats]
    is_content: Mask


def extra_tokens(first: FirstLook, rule: SecondLook) -> Positions:
    """Positions to read on top, ascending; none where what was read is enough."""
    n_most = rule.n_most(len(first.is_read))
    chosen: list[int] = []
    if n_most > 0 and edge_pull(first) > rule.max_edge:
        chosen = _beyond_edges(first, rule.max_edge, n_most)
    if n_most > len(chosen) and entropy(first.logits) > rule.max_entropy:
        chosen += _best_unread(first, set(chosen), n_most - len(chosen))
    return np.array(sorted(chosen), np.int64)


def entropy(logits: Floats) -> float:
    """Of the distribution that logits stand for, in nats."""
    shifted = logits.astype(np.float64) - float(logits.max())
    weights = np.exp(shifted)
    total = weights.sum()
    return float(np.log(total) - (weights * shifted).sum() / total)


def edge_pull(first: FirstLook) -> float:
    """Attention to the edges of unread gaps, in units of the content's mean; 0 where there is no gap."""
    pulls = _edge_pulls(first)
    return float(np.nanmean(pulls)) if np.isfinite(pulls).any() else 0.0


def _beyond_edges(first: FirstLook, least: float, n_most: int) -> list[int]:
    """Unread tokens next to the edges whose pull is above ``least``, the highest pull first."""
    pulls = _edge_pulls(first)
    edges = np.flatnonzero(pulls > least)
    chosen: dict[int, None] = {}
    for edge in edges[np.argsort(-pulls[edges], kind="stable")]:
        for step in (-1, 1):
            for pos in range(edge + step, edge + step * (_STRIDE + 1), step):
                if not 0 <= pos < len(first.is_read) or first.is_read[pos]:
                    break
                if len(chosen) == n_most:
                    return list(chosen)
                chosen[int(pos)] = None
    return list(chosen)


def _best_unread(first: FirstLook, taken: set[int], n_most: int) -> list[int]:
    """Unread tokens with the draft's highest scores."""
    unread = np.flatnonzero(~first.is_read & np.isfinite(first.scores))
    ranked = unread[np.argsort(-first.scores[unread], kind="stable")]
    return [int(pos) for pos in ranked if int(pos) not in taken][:n_most]


def _edge_pulls(first: FirstLook) -> Floats:
    """(n_tokens,) attention to each edge of a gap, 1 is the mean of the content that was read; NaN elsewhere."""
    pulls = np.full(len(first.is_read), np.nan, np.float32)
    if first.attention is None:
        return pulls
    inside = first.is_content & first.is_read & np.isfinite(first.attention)
    unread = np.pad(~first.is_read, 1)
    edges = inside & (unread[:-2] | unread[2:])
    mean = float(first.attention[inside].mean()) if inside.any() else 0.0
    if mean > 0:
        pulls[edges] = first.attention[edges] / mean
    return pulls
