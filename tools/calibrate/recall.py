"""How much must be kept so that a pruning point keeps what answers: recall of evidence, from recordings.

Owns the ways to score that are compared, their figures, and the search for the best one after each layer: over plain
attention and single heads, over who asks and over pools. Pure NumPy over recordings.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from lazygguf._ffi import count_kept
from lazygguf.read.scores import pooled as pooled_around
from lazygguf.schedule.keep_schedule import QUESTION, PruningPoint

from .recording import ASKING, Recording

Shares = npt.NDArray[np.float64]
Scores = npt.NDArray[np.float64]

POOLS = (1, 7, 13, 21, 31)
CROSS_LAYERS = (1, 2, 4)
HEAD_POOLS = (13, 21)
HEAD_REACH = 3  # layers before the point whose heads may score
MAX_HEADS = 6
HEADS_GAIN = 0.95  # heads are taken where they need less than this share of what the mean over heads needs
MASSES = (0.1, 0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)  # with the first ones `keep_min` alone decides
FIRST_DEPTH = 0.15  # of the layers: earlier layers match single words only


@dataclass(frozen=True)
class Scorer:
    """A way to score at a pruning point."""

    asking: str = "max"  # "newest", "mean" or "max" (of the question's tokens and the newest)
    pool: int = 1  # neighbours averaged over
    n_layers: int = 1  # without heads: maximum over this many layers of the mean over their heads
    # pairs (layer, head), combined by maximum; None is the mean over heads
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
        attention = recording.attention[self.asking]
        if self.heads is None:
            return np.asarray(attention[il - self.n_layers + 1 : il + 1].astype(np.float64).mean(axis=1).max(axis=0))
        layers, heads = zip(*self.heads)
        return np.asarray(attention[list(layers), list(heads)].astype(np.float64).max(axis=0))

    def __str__(self) -> str:
        who = {"newest": "newest token", "mean": "question", "max": "question, max"}[self.asking]
        heads = "mean of heads" if self.heads is None else "heads " + " ".join(f"{il}.{h}" for il, h in self.heads)
        layers = f" of {self.n_layers} layers" if self.heads is None and self.n_layers > 1 else ""
        return f"{who}, {heads}{layers}, pool {self.pool}"


def pooled(scores: Scores, pool: int) -> Scores:
    """Scores (..., n_tokens) averaged over neighbours, as the engine does where all are live."""
    return scores if pool == 1 else pooled_around(scores, pool // 2, pool // 2)


def needed_share(scores: npt.NDArray[np.floating[Any]], recording: Recording) -> Shares:
    """The least ``keep`` at which all evidence goes on.

    Args:
        scores: pooled, (..., n_tokens).
        recording: whose evidence is meant.

    Returns:
        (...); ties count against the evidence.
    """
    is_free = _is_free(recording)
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
    shares = [needed_share(pooled(r.attention[asking].astype(np.float64), pool), r) for r in recordings]
    return np.asarray(np.mean([share <= keep for share in shares], axis=0))


def kept_share(scores: Scores, recording: Recording, mass: float) -> float:
    """The share that goes on where the fewest are kept that hold this share of the scores; (n_tokens,) pooled."""
    is_free = _is_free(recording)
    n_best = count_kept(scores[is_free], 1.0, 0.0, mass)
    return float((n_best + recording.n_tokens - int(is_free.sum())) / recording.n_tokens)


def _is_free(recording: Recording) -> npt.NDArray[np.bool_]:
    is_free = np.ones(recording.n_tokens, bool)
    is_free[list(recording.protected)] = False
    return is_free


PAPER = Scorer("newest")


@dataclass(frozen=True)
class LayerRecall:
    """How well evidence is found after a layer."""

    il: int
    scorer: Scorer  # the best way to score there
    needed: Shares  # share that must go on for each recording, (n_recordings,)
    by_fact: Shares  # the same for each fact alone, of one recording after the other, (n_facts,)
    kept: Shares  # share that goes on with each of MASSES, (n_masses, n_recordings)
    paper: Shares  # needed by the paper's score


def layer_recalls(recordings: Sequence[Recording], n_layer: int) -> Iterator[LayerRecall]:
    """The best way to score after each layer from ``FIRST_DEPTH`` on; yields as it goes.

    Prompts that the dense model answers wrongly count too: what would have answered is known, heads attend to it all
    the same, and what a model does not answer in these words it may answer in others.
    """
    for il in range(max(1, int(FIRST_DEPTH * n_layer)), n_layer - 1):
        scorer = best_scorer(recordings, il)
        scores = [pooled(scorer.scores(r, il), scorer.pool) for r in recordings]
        kept = np.array([[kept_share(s, r, mass) for s, r in zip(scores, recordings)] for mass in MASSES])
        facts = [needed_by_fact(s, r) for s, r in zip(scores, recordings)]
        needed = np.array([each.max() for each in facts])
        yield LayerRecall(il, scorer, needed, np.concatenate(facts), kept, needed_shares(PAPER, il, recordings))


def best_scorer(recordings: Sequence[Recording], il: int) -> Scorer:
    """The way to score after layer ``il`` that needs the least.

    Single heads can be chosen to fit a few probes by chance, so a set of heads is judged on the half of the probes that
    did not choose it, and must gain clearly.
    """
    plain = [
        Scorer(asking, pool, n_layers)
        for asking, pool, n_layers in itertools.product(ASKING, POOLS, CROSS_LAYERS)
        if n_layers <= il + 1
    ]
    losses = [loss(needed_shares(scorer, il, recordings)) for scorer in plain]
    best, least = plain[int(np.argmin(losses))], min(losses)
    halves = recordings[::2], recordings[1::2]
    for asking, pool in itertools.product(("mean", "max"), HEAD_POOLS):
        crossed = [
            loss(needed_shares(choose_heads(fit, il, asking, pool), il, test)) for fit, test in (halves, halves[::-1])
        ]
        if np.mean(crossed) < HEADS_GAIN * least:
            best, least = choose_heads(recordings, il, asking, pool), float(np.mean(crossed))
    return best


def choose_heads(recordings: Sequence[Recording], il: int, asking: str, pool: int) -> Scorer:
    """Heads of the last layers up to ``il``, taken one by one, each the one that helps most."""
    layers = list(range(max(0, il - HEAD_REACH), il + 1))
    attention = [r.attention[asking][layers].astype(np.float64) for r in recordings]  # (layers, n_head, n_tokens)
    chosen: list[tuple[int, int]] = []
    held: list[Optional[npt.NDArray[np.float64]]] = [None] * len(recordings)
    least = np.inf
    while len(chosen) < MAX_HEADS:
        joined = [rows if have is None else np.maximum(rows, have) for rows, have in zip(attention, held)]
        shares = np.stack([needed_share(pooled(rows, pool), r) for rows, r in zip(joined, recordings)])
        losses = shares.mean(axis=0) + np.quantile(shares, 0.9, axis=0)  # (layers, n_head)
        at = np.unravel_index(int(losses.argmin()), losses.shape)
        if losses[at] > 0.97 * least:
            break
        least = float(losses[at])
        chosen.append((layers[int(at[0])], int(at[1])))
        held = [rows[at] for rows in joined]
    return Scorer(asking, pool, heads=tuple(chosen))
