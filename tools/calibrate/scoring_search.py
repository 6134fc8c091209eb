"""How a small model scores best as a draft: which layers, who asks, how far a score is spread.

Owns the search over scoring profiles. Pure NumPy over glances; scores are those of ``lazygguf.draft.draft``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Union

import numpy as np
import numpy.typing as npt

from lazygguf.read.scores import pooled
from lazygguf.schedule.keep_schedule import QUESTION
from lazygguf.schedule.scoring import MAX, MEAN, ScoringProfile

from .glance import Glance
from .recall import Shares, loss, needed_share

FIRST_DEPTH, LAST_DEPTH = 0.2, 0.85  # of the layers: where a draft may stop; later ones cost and add nothing
WIDTHS = (1, 2, 3, 4, 6, 10)  # layers whose best counts, up to the last one read
QUERIES: tuple[Union[int, str], ...] = (QUESTION, 24, 8)
POOLS: tuple[Union[int, tuple[int, int]], ...] = (1, 7, 13, 21, 31, (10, 5), (20, 10), (30, 15), (6, 24))
SLACK = 0.02  # of the loss: a draft that stops earlier and is hardly worse is taken, since each layer costs time


@dataclass(frozen=True)
class Found:
    """A scoring profile and the share that must be read for all evidence, by glance."""

    profile: ScoringProfile
    needed: Shares

    @property
    def loss(self) -> float:
        """One figure, lower is better."""
        return loss(self.needed)


def scores(glance: Glance, profile: ScoringProfile) -> npt.NDArray[np.float64]:
    """(n_tokens,), as a draft with this profile gives them."""
    return _spread(_looked(glance, profile), profile)


def needed(glances: Sequence[Glance], profile: ScoringProfile) -> Shares:
    """``needed_share`` of each glance, (n_glances,)."""
    return np.array([needed_share(scores(glance, profile), glance) for glance in glances])


def by_depth(glances: Sequence[Glance]) -> Iterator[Found]:
    """The best profile that reads up to each layer, the shallowest first; yields as it goes."""
    n_layer = glances[0].rows.shape[0]
    for il in range(int(FIRST_DEPTH * n_layer), max(int(LAST_DEPTH * n_layer), int(FIRST_DEPTH * n_layer) + 1)):
        yield min((found for found in _at(glances, il)), key=lambda found: found.loss)


def choose(found: Sequence[Found]) -> Found:
    """The shallowest that is nearly as good as the best."""
    least = min(each.loss for each in found)
    good = [each for each in found if each.loss <= least + SLACK]
    return min(good, key=lambda each: each.profile.n_layer)


def _at(glances: Sequence[Glance], il: int) -> Iterator[Found]:
    for width, over, n_query in itertools.product(WIDTHS, (MAX, MEAN), QUERIES):
        if width > il + 1:
            continue
        plain = ScoringProfile(tuple(range(il - width + 1, il + 1)), n_query=n_query, over_query=over)
        looked = [_looked(glance, plain) for glance in glances]
        for pool in POOLS:
            profile = ScoringProfile(plain.layers, n_query=n_query, over_query=over, pool=pool)
            shares = [needed_share(_spread(row, profile), glance) for row, glance in zip(looked, glances)]
            yield Found(profile, np.array(shares))


def _looked(glance: Glance, profile: ScoringProfile) -> npt.NDArray[np.float32]:
    """(n_tokens,) before it is spread."""
    rows = glance.rows[list(profile.layers), -profile.max_query :].astype(np.float32)
    asked = rows.max(axis=1) if profile.over_query == MAX else rows.mean(axis=1)
    return np.asarray(asked.max(axis=0))


def _spread(looked: npt.NDArray[np.float32], profile: ScoringProfile) -> npt.NDArray[np.float64]:
    return pooled(looked, *profile.around)
