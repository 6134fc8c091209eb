"""From recordings to schedules: which layers see, who in them, and how much of the scores must go on.

Owns the search: the best way to score after each layer, then the cheapest adaptive points whose recall reaches each
level. Proposals only: recordings are dense, and what a pruned run does is the engine's to say (``verify``).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np
import numpy.typing as npt

from lazygguf.schedule import BEFORE_LAYER_0, KeepSchedule, PruningPoint

from .recall import Scorer, Shares, kept_share, loss, needed_share, needed_shares, pooled
from .recording import Recording

POOLS = (1, 7, 13, 21, 31)
CROSS_LAYERS = (1, 2, 4)
HEAD_POOLS = (13, 21)
HEAD_REACH = 3  # layers before the point whose heads may score
MAX_HEADS = 4
HEADS_GAIN = 0.95  # heads are taken where they need less than this share of what the mean over heads needs
MASSES = (0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
MARGIN = 1.15  # recordings are dense: a pruned run's scores differ, so more is kept than they need
CEILING = 1.5  # times what the hardest probe is given: what keep allows
# keep_min, as a share of what a probe is given on average: scores can be sure and wrong, drawn by a worked example that
# repeats the question's words
FLOOR = 0.8
FIRST_DEPTH = 0.15  # of the layers: earlier ones see words alone
DEPTHS = (0.15, 0.25, 0.33, 0.42, 0.5)  # of the layers: where proposals begin to prune
SLACK = 0.02  # of recall that a proposal may lose against the best of its depth
# A decode step brings nothing back, or all that a new word is about, so that chains are followed; few rows on average.
MAX_REVIVE, REVIVE_MARGIN, MEAN_REVIVE = 32, 2.0, 4.0
MAX_POINTS = 3
DRAFTED_KEEPS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.45)
ANSWERED, LEAST_ANSWERED = 0.3, 8  # a score that shows that a kind can be answered; recordings that are enough
PAPER = Scorer("newest")


@dataclass(frozen=True)
class Sight:
    """What can be seen after a layer.

    Attributes:
        il: the layer.
        scorer: the best way to score there.
        needed: share that must go on for each recording, (n_recordings,).
        kept: share that goes on with each of ``MASSES``, (n_masses, n_recordings).
        paper: ``needed`` by the paper's score.
    """

    il: int
    scorer: Scorer
    needed: Shares
    kept: Shares
    paper: Shares


@dataclass(frozen=True)
class Proposal:
    """A schedule that may hold.

    Attributes:
        schedule: the schedule.
        share: of the dense work of reading, by the recordings.
        recall: share of the probes, kinds weighted alike, whose evidence goes through all points; None where recordings
            do not say, since a draft chooses.
    """

    schedule: KeepSchedule
    share: float
    recall: Optional[float]


def answerable(recordings: Sequence[Recording]) -> list[Recording]:
    """Those of the kinds that the dense model answers at least once, in part at least.

    Within such a kind a wrong answer counts too: what would have answered is known, and heads look at it all the same.
    What a small model says to a chain of assignments is mostly wrong, and only chains show which heads follow them.
    """
    kinds = {r.kind for r in recordings if r.score >= ANSWERED}
    chosen = [r for r in recordings if r.kind in kinds]
    return chosen if len(chosen) >= LEAST_ANSWERED else list(recordings)


def sights(recordings: Sequence[Recording], n_layer: int) -> Iterator[Sight]:
    """The best way to score after each layer from ``FIRST_DEPTH`` on; yields as it goes."""
    for il in range(max(1, int(FIRST_DEPTH * n_layer)), n_layer - 1):
        scorer = best_scorer(recordings, il)
        scores = [pooled(scorer.scores(r, il), scorer.pool) for r in recordings]
        kept = np.array([[kept_share(s, r, mass) for s, r in zip(scores, recordings)] for mass in MASSES])
        needed = np.array([needed_share(s, r) for s, r in zip(scores, recordings)])
        yield Sight(il, scorer, needed, kept, needed_shares(PAPER, il, recordings))


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


@dataclass(frozen=True)
class _Choice:
    """A point that may be taken: where, how much of the mass, and what that does to each recording."""

    sight: Sight
    mass: float
    floor: float
    kept: Shares
    passes: npt.NDArray[np.bool_]


def _choice(sight: Sight, mass: float, by_mass: Shares) -> _Choice:
    floor = FLOOR * float(by_mass.mean())
    kept = np.maximum(by_mass, floor)
    return _Choice(sight, mass, floor, kept, sight.needed * MARGIN <= kept)


def propose(seen: Sequence[Sight], kinds: Sequence[str], n_layer: int) -> list[Proposal]:
    """Schedules that recall alike and begin to prune at different depths, cheapest first.

    Recordings cannot tell what a token loses that is read without its neighbours from early on; the engine can. So
    there are proposals for each of ``DEPTHS``: the cheapest that prune no earlier and recall nearly all that can be.

    Args:
        seen: by layer.
        kinds: of the recordings.
        n_layer: layers of the model.
    """
    weights = np.array([1.0 / kinds.count(kind) for kind in kinds]) / len(set(kinds))
    choices = [_choice(sight, mass, kept) for sight in seen for mass, kept in zip(MASSES, sight.kept)]
    best: dict[tuple[int, int], tuple[float, tuple[_Choice, ...]]] = {}  # by first layer and recall in percent
    for chain, share, passes in _chains(choices, n_layer):
        key = chain[0].sight.il, round(100 * float(passes @ weights))
        if key not in best or share < best[key][0]:
            best[key] = share, chain
    found: list[Proposal] = []
    for depth in DEPTHS:
        late = [(share, level, chain) for (il, level), (share, chain) in best.items() if il + 1 >= depth * n_layer]
        most = max((level for _, level, _ in late), default=0)
        good = [each for each in late if each[1] >= most - 100 * SLACK]
        if good:
            share, level, chain = min(good, key=lambda each: each[0])
            found.append(Proposal(schedule_of(chain), share, level / 100))
    distinct = {str(proposal.schedule.to_dict()): proposal for proposal in found}
    return sorted(distinct.values(), key=lambda proposal: proposal.share)


def drafted_proposals() -> list[Proposal]:
    """One point before layer 0, where a draft chooses, for each of ``DRAFTED_KEEPS``."""
    points = [PruningPoint(BEFORE_LAYER_0, keep) for keep in DRAFTED_KEEPS]
    return [Proposal(KeepSchedule((point,), dense_unasked=True), point.keep, None) for point in points]


def schedule_of(chain: Sequence[_Choice]) -> KeepSchedule:
    """The schedule of some points; what ``keep`` allows never rises."""
    points, most = [], 1.0
    for choice in chain:
        most = min(most, round(CEILING * float(choice.kept.max()), 2))
        least = min(most, round(choice.floor, 2))
        points.append(choice.sight.scorer.point(choice.sight.il, most, mass=choice.mass, keep_min=least))
    return KeepSchedule(
        tuple(points),
        max_revive=MAX_REVIVE,
        revive_margin=REVIVE_MARGIN,
        mean_revive=MEAN_REVIVE,
        decode_cached=True,
        dense_unasked=True,
    )


Chain = tuple[tuple[_Choice, ...], float, npt.NDArray[np.bool_]]


def _chains(choices: Sequence[_Choice], n_layer: int) -> Iterator[Chain]:
    """Points that can follow each other, their share of the work, and which recordings pass them all."""
    useful = [choice for choice in choices if choice.passes.mean() >= 0.5]
    follows = [
        [j for j in range(i + 1, len(useful)) if _can_follow(useful[i].sight, useful[j].sight)]
        for i in range(len(useful))
    ]

    def extend(chain: tuple[int, ...], work: Shares, live: Shares, passes: npt.NDArray[np.bool_]) -> Iterator[Chain]:
        """work: layers' worth done up to the last point; live: what goes on from it, by recording."""
        last = useful[chain[-1]]
        share = float((work + live * (n_layer - 1 - last.sight.il)).mean() / n_layer)
        yield tuple(useful[i] for i in chain), share, passes
        for j in follows[chain[-1]] if len(chain) < MAX_POINTS else ():
            then = useful[j]
            kept = np.minimum(live, then.kept)
            if kept.mean() < 0.9 * live.mean():
                done = work + live * (then.sight.il - last.sight.il)
                yield from extend((*chain, j), done, kept, passes & then.passes)

    for i, choice in enumerate(useful):
        yield from extend((i,), np.full(len(choice.kept), choice.sight.il + 1.0), choice.kept, choice.passes)


def _can_follow(before: Sight, after: Sight) -> bool:
    return after.scorer.first_layer(after.il) > before.il
