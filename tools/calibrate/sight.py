"""What can be seen after each layer, and how it is looked for best.

Owns the search for the way to score: over plain attention and single heads, over who asks and over pools.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np
import numpy.typing as npt

from .recall import Scorer, Shares, kept_share, loss, needed_by_fact, needed_share, needed_shares, pooled
from .recording import Recording

POOLS = (1, 7, 13, 21, 31)
CROSS_LAYERS = (1, 2, 4)
HEAD_POOLS = (13, 21)
HEAD_REACH = 3  # layers before the point whose heads may score
MAX_HEADS = 6
HEADS_GAIN = 0.95  # heads are taken where they need less than this share of what the mean over heads needs
MASSES = (0.1, 0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)  # the first ones leave it to the floor
FIRST_DEPTH = 0.15  # of the layers: earlier ones see words alone
PAPER = Scorer("newest")


@dataclass(frozen=True)
class Sight:
    """What can be seen after a layer.

    Attributes:
        il: the layer.
        scorer: the best way to score there.
        needed: share that must go on for each recording, (n_recordings,).
        by_fact: the same for each fact alone, of one recording after the other, (n_facts,).
        kept: share that goes on with each of ``MASSES``, (n_masses, n_recordings).
        paper: ``needed`` by the paper's score.
    """

    il: int
    scorer: Scorer
    needed: Shares
    by_fact: Shares
    kept: Shares
    paper: Shares


def sights(recordings: Sequence[Recording], n_layer: int) -> Iterator[Sight]:
    """The best way to score after each layer from ``FIRST_DEPTH`` on; yields as it goes.

    Prompts that the dense model answers wrongly count too: what would have answered is known, heads look at it all the
    same, and what a model does not answer in these words it may answer in others.
    """
    for il in range(max(1, int(FIRST_DEPTH * n_layer)), n_layer - 1):
        scorer = best_scorer(recordings, il)
        scores = [pooled(scorer.scores(r, il), scorer.pool) for r in recordings]
        kept = np.array([[kept_share(s, r, mass) for s, r in zip(scores, recordings)] for mass in MASSES])
        facts = [needed_by_fact(s, r) for s, r in zip(scores, recordings)]
        needed = np.array([each.max() for each in facts])
        yield Sight(il, scorer, needed, np.concatenate(facts), kept, needed_shares(PAPER, il, recordings))


def best_scorer(recordings: Sequence[Recording], il: int) -> Scorer:
    """The way to score after layer ``il`` that needs the least.

    Single heads can be chosen to fit a few probes by chance, so a set of heads is judged on the half of the probes that
    did not choose it, and must gain clearly.
    """
    plain = [
        Scorer(asking, pool, n_layers)
        for asking, pool, n_layers in itertools.product(("newest", "mean", "max"), POOLS, CROSS_LAYERS)
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
    looks = [r.looks[asking][layers].astype(np.float64) for r in recordings]  # (layers, n_head, n_tokens)
    chosen: list[tuple[int, int]] = []
    held: list[Optional[npt.NDArray[np.float64]]] = [None] * len(recordings)
    least = np.inf
    while len(chosen) < MAX_HEADS:
        joined = [rows if have is None else np.maximum(rows, have) for rows, have in zip(looks, held)]
        shares = np.stack([needed_share(pooled(rows, pool), r) for rows, r in zip(joined, recordings)])
        losses = shares.mean(axis=0) + np.quantile(shares, 0.9, axis=0)  # (layers, n_head)
        at = np.unravel_index(int(losses.argmin()), losses.shape)
        if losses[at] > 0.97 * least:
            break
        least = float(losses[at])
        chosen.append((layers[int(at[0])], int(at[1])))
        held = [rows[at] for rows in joined]
    return Scorer(asking, pool, heads=tuple(chosen))
