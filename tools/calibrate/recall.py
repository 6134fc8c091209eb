"""How much must be kept so that a point keeps what answers: recall of evidence, from recordings.

Owns the ways to score that are compared, and their figures. Pure NumPy over recordings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Optional, Protocol

import numpy as np
import numpy.typing as npt

from lazygguf.schedule.keep_schedule import QUESTION, PruningPoint

from .recording import Recording

Shares = npt.NDArray[np.float64]
Scores = npt.NDArray[np.float64]


class Evident(Protocol):
    """A prompt that knows where its answer stands (``Recording``, ``glance.Glance``)."""

    @property
    def n_tokens(self) -> int: ...
    @property
    def protected(self) -> tuple[int, ...]: ...
    @property
    def evidence(self) -> tuple[tuple[int, ...], ...]: ...


@dataclass(frozen=True)
class Scorer:
    """A way to score at a pruning point.

    Attributes:
        asking: ``"newest"``, ``"mean"`` or ``"max"`` (of the question's tokens and the newest).
        pool: neighbours averaged over.
        n_layers: without heads: maximum over this many layers of the mean over their heads.
        heads: pairs (layer, head), combined by maximum; None is the mean over heads.
    """

    asking: str = "max"
    pool: int = 1
    n_layers: int = 1
    heads: Optional[tuple[tuple[int, int], ...]] = None

    def first_layer(self, il: int) -> int:
        """The earliest layer whose attention counts after layer ``il``."""
        return il - self.n_layers + 1 if self.heads is None else min(layer for layer, _ in self.heads)

    def point(self, il: int, keep: float, mass: float = 1.0, keep_min: float = 0.0) -> PruningPoint:
        """The pruning point that scores so."""
        return PruningPoint(
            il,
            keep,
            self.heads,
            n_query=1 if self.asking == "newest" else QUESTION,
            pool=self.pool,
            query_max=self.asking == "max",
            n_layers=self.n_layers,
            mass=mass,
            keep_min=keep_min,
        )

    def scores(self, recording: Recording, il: int) -> Scores:
        """Scores after layer ``il`` before pooling, (n_tokens,)."""
        looks = recording.looks[self.asking]
        if self.heads is None:
            return np.asarray(looks[il - self.n_layers + 1 : il + 1].astype(np.float64).mean(axis=1).max(axis=0))
        layers, heads = zip(*self.heads)
        return np.asarray(looks[list(layers), list(heads)].astype(np.float64).max(axis=0))

    def __str__(self) -> str:
        who = {"newest": "newest token", "mean": "question", "max": "question, max"}[self.asking]
        heads = "mean of heads" if self.heads is None else "heads " + " ".join(f"{il}.{h}" for il, h in self.heads)
        layers = f" of {self.n_layers} layers" if self.heads is None and self.n_layers > 1 else ""
        return f"{who}, {heads}{layers}, pool {self.pool}"


def pooled(scores: Scores, pool: int) -> Scores:
    """Scores (..., n_tokens) averaged over neighbours, as the engine does where all are live."""
    if pool == 1:
        return scores
    n, reach = scores.shape[-1], pool // 2
    sums = np.concatenate([np.zeros((*scores.shape[:-1], 1)), np.cumsum(scores, axis=-1)], axis=-1)
    low, high = np.maximum(np.arange(n) - reach, 0), np.minimum(np.arange(n) + reach + 1, n)
    return np.asarray((sums[..., high] - sums[..., low]) / (high - low))


def needed_share(scores: Scores, recording: Evident) -> Shares:
    """The least ``keep`` at which all evidence goes on.

    Args:
        scores: pooled, (..., n_tokens).
        recording: whose evidence is meant.

    Returns:
        (...); ties count against the evidence.
    """
    is_free = np.ones(recording.n_tokens, bool)
    is_free[list(recording.protected)] = False
    wanted = [pos for fact in recording.evidence for pos in fact if is_free[pos]]
    n_protected = recording.n_tokens - int(is_free.sum())
    if not wanted:
        return np.full(scores.shape[:-1], n_protected / recording.n_tokens)
    worst = scores[..., wanted].min(axis=-1, keepdims=True)
    n_kept = (scores[..., is_free] >= worst).sum(axis=-1) + n_protected
    return np.asarray(n_kept / recording.n_tokens)


def needed_by_fact(scores: Scores, recording: Recording) -> Shares:
    """``needed_share`` of each fact alone, (n_facts,); scores pooled, (n_tokens,)."""
    alone = [replace(recording, evidence=(fact,)) for fact in recording.evidence]
    return np.array([needed_share(scores, each) for each in alone], np.float64)


def needed_shares(scorer: Scorer, il: int, recordings: Sequence[Recording]) -> Shares:
    """``needed_share`` of each recording, (n_recordings,)."""
    return np.array([needed_share(pooled(scorer.scores(r, il), scorer.pool), r) for r in recordings])


def loss(shares: Shares) -> float:
    """One figure of a way to score, lower is better: what it needs on average, and at its worst."""
    return float(shares.mean() + np.quantile(shares, 0.9))


def recall_map(recordings: Sequence[Recording], asking: str, pool: int, keep: float) -> npt.NDArray[np.float64]:
    """(n_layer, n_head): the share of probes whose evidence is wholly among the best ``keep`` of a single head."""
    shares = [needed_share(pooled(r.looks[asking].astype(np.float64), pool), r) for r in recordings]
    return np.asarray(np.mean([share <= keep for share in shares], axis=0))


def kept_share(scores: Scores, recording: Recording, mass: float) -> float:
    """The share that goes on where the fewest are kept that hold this share of the scores; (n_tokens,) pooled."""
    is_free = np.ones(recording.n_tokens, bool)
    is_free[list(recording.protected)] = False
    held = np.cumsum(np.sort(scores[is_free])[::-1])
    n_best = int(np.searchsorted(held, mass * held[-1])) + 1
    return float((n_best + recording.n_tokens - int(is_free.sum())) / recording.n_tokens)
