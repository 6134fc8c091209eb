"""From what each layer sees to schedules: where to prune, how much of the scores goes on, and how little at least.

Owns the search over points: for each amount of work the points through which the most evidence passes. Proposals only:
recordings are dense, and what a pruned run does is the engine's to say (``trials``).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np
import numpy.typing as npt

from lazygguf.schedule.keep_schedule import BEFORE_LAYER_0, KeepSchedule, PruningPoint

from .recall import MASSES, LayerRecall, Shares
from .recording import Recording

# Least share under the mass rule: scores can be confident and wrong (a worked example attracts them). Not below a
# quarter (docs/selection.md).
FLOORS = (0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7)
# How much more than the needed share is kept: recordings are dense, and the scores of a pruned run differ.
MARGINS = (1.0, 1.15, 1.3, 1.5)
CEILING = 1.5  # `keep`, as a multiple of what the hardest probe gets
NEAR = (1.0, 1.03, 1.06, 1.09)  # a run does slightly less work than recordings predict: try a little above
SHARES = (0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7)  # of the dense work: there are proposals for each
LATER_BEGIN, LATER_END = 1, 4  # layers: each has other proposals, whose first or last point comes so much later
GAIN = 0.01  # of recall that a larger keep must bring
LEAST_RECALL = 0.4
THINNER = 0.85  # of what is live goes on at most after a further point
# A decode step brings nothing back, or all that a new word is about, so that chains are followed; few rows on average.
MAX_REVIVE, REVIVE_MARGIN, MEAN_REVIVE = 128, 1.2, 16.0
MAX_POINTS = 3
DRAFTED_KEEPS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.45)

Passes = npt.NDArray[np.bool_]  # (n_margins, n_facts)


@dataclass(frozen=True)
class Proposal:
    """A schedule that may hold."""

    schedule: KeepSchedule
    share: float  # of the dense work of reading, by the recordings
    # share of the facts that goes through all points, averaged over MARGINS, kinds weighted alike; None where
    # recordings do not say, since a draft chooses
    recall: Optional[float]


@dataclass(frozen=True)
class Facts:
    """Whose the facts of some recordings are."""

    owner: npt.NDArray[np.intp]  # index of the recording, (n_facts,)
    weight: Shares  # sums to 1; kinds weigh alike, and so do recordings of a kind and facts of a recording, (n_facts,)

    @classmethod
    def of(cls, recordings: Sequence[Recording]) -> Facts:
        """Those of the recordings, one recording after the other."""
        kinds = [r.kind for r in recordings]
        owner = [i for i, r in enumerate(recordings) for _ in r.evidence]
        shares = [1.0 / (kinds.count(kinds[i]) * len(recordings[i].evidence)) for i in owner]
        return cls(np.array(owner, np.intp), np.array(shares) / len(set(kinds)))

    def recall(self, passes: Passes) -> float:
        """One figure of what passes."""
        return float((passes @ self.weight).mean())


@dataclass(frozen=True)
class _Choice:
    """A point that may be taken: where, how much of the mass, how much at least, and what that does."""

    layer: LayerRecall
    mass: float
    floor: float
    kept: Shares  # what goes on of each recording, (n_recordings,)
    passes: Passes  # the facts that go on


@dataclass(frozen=True)
class _Chain:
    """Points one after the other; of each recording, the layers' worth done up to the last, and what goes on."""

    choices: tuple[_Choice, ...]
    work: Shares
    live: Shares
    passes: Passes

    @property
    def span(self) -> tuple[int, int]:
        """The layers of the first and the last point."""
        return self.choices[0].layer.il, self.choices[-1].layer.il

    def share(self, n_layer: int) -> float:
        """Of the dense work, on average."""
        return float((self.work + self.live * (n_layer - 1 - self.choices[-1].layer.il)).mean() / n_layer)


_Promise = tuple[float, float, _Chain]  # recall, share, points
_BySpan = dict[tuple[int, int], _Promise]  # by the layers of the first and the last point


def shares_near(max_share: Optional[float]) -> tuple[float, ...]:
    """The shares of the dense work for which there are proposals; around the given one where one is given."""
    return SHARES if max_share is None else tuple(max_share * times for times in NEAR)


def propose(
    layers: Sequence[LayerRecall], recordings: Sequence[Recording], n_layer: int, shares: Sequence[float] = SHARES
) -> list[Proposal]:
    """For each of some shares of the dense work the points that recall the most, cheapest first.

    Recordings cannot tell what a token loses that is read without its neighbours from early on, nor what a later point
    sees where some are gone; the engine can. So each has other proposals, that begin or end later or do both.

    Args:
        layers: how well evidence is found after each.
        recordings: what that was found in.
        n_layer: layers of the model.
        shares: ascending.
    """
    facts = Facts.of(recordings)
    choices = [choice for layer in layers for choice in _worthwhile(layer, facts)]
    best: dict[float, _BySpan] = {budget: {} for budget in shares}
    for chain in _chains(choices, shares[-1] * n_layer):
        share, span = chain.share(n_layer), chain.span
        if share > shares[-1]:
            continue
        recall = facts.recall(chain.passes)
        for budget, by_span in best.items():
            if share <= budget and (span not in by_span or (recall, -share) > (by_span[span][0], -by_span[span][1])):
                by_span[span] = recall, share, chain
    found: dict[KeepSchedule, Proposal] = {}
    for by_span in best.values():
        for recall, share, chain in _first_and_later(by_span):
            schedule = schedule_of(chain.choices)
            found[schedule] = Proposal(schedule, share, recall)
    return sorted(found.values(), key=lambda proposal: proposal.share)


def _first_and_later(by_span: _BySpan) -> list[_Promise]:
    """The best of all, the best of those that begin later or end later, and the best two of those that do both."""
    if not by_span:
        return []
    begin, end = max(by_span, key=lambda span: by_span[span][0])
    found: dict[tuple[int, int], _Promise] = {}
    for begins, ends in itertools.product((0, LATER_BEGIN), (0, LATER_END)):
        late = [span for span in by_span if span[0] >= begin + begins and span[1] >= end + ends]
        for span in sorted(late, key=lambda span: -by_span[span][0])[: 2 if begins and ends else 1]:
            found[span] = by_span[span]
    return list(found.values())


def drafted_proposals(max_share: Optional[float] = None) -> list[Proposal]:
    """One point before layer 0, where a draft chooses, for each of ``DRAFTED_KEEPS`` up to a share."""
    points = [PruningPoint(BEFORE_LAYER_0, keep) for keep in DRAFTED_KEEPS if keep <= (max_share or 1.0)]
    return [Proposal(KeepSchedule((point,), dense_unasked=True), point.keep, None) for point in points]


def schedule_of(choices: Sequence[_Choice]) -> KeepSchedule:
    """The schedule of some points; what ``keep`` allows never rises."""
    points, most = [], 1.0
    for choice in choices:
        most = min(most, round(CEILING * float(choice.kept.max()), 2))
        least = min(most, choice.floor)
        points.append(choice.layer.scorer.point(choice.layer.il, most, mass=choice.mass, keep_min=least))
    return KeepSchedule(
        tuple(points),
        max_revive=MAX_REVIVE,
        revive_margin=REVIVE_MARGIN,
        mean_revive=MEAN_REVIVE,
        decode_cached=True,
        dense_unasked=True,
    )


def _worthwhile(layer: LayerRecall, facts: Facts) -> list[_Choice]:
    """The ways to prune after a layer, cheapest first, each of which recalls more than all that are cheaper."""
    needed = np.outer(MARGINS, layer.by_fact)
    options = []
    for (mass, by_mass), floor in itertools.product(zip(MASSES, layer.kept), FLOORS):
        kept = np.maximum(by_mass, floor)
        options.append(_Choice(layer, mass, floor, kept, needed <= kept[facts.owner]))
    found: list[_Choice] = []
    most = LEAST_RECALL
    for choice in sorted(options, key=lambda choice: float(choice.kept.mean())):
        recall = facts.recall(choice.passes)
        if recall >= most + GAIN:
            found.append(choice)
            most = recall
    return found


def _chains(choices: Sequence[_Choice], most: float) -> Iterator[_Chain]:
    """Points that can follow each other, with at most so many layers' worth of work up to the last."""
    firsts = [choice.layer.scorer.first_layer(choice.layer.il) for choice in choices]
    follows = [
        [j for j in range(i + 1, len(choices)) if firsts[j] > before.layer.il] for i, before in enumerate(choices)
    ]

    def extend(chain: _Chain, last: int) -> Iterator[_Chain]:
        yield chain
        for j in follows[last] if len(chain.choices) < MAX_POINTS else ():
            then = choices[j]
            kept = np.minimum(chain.live, then.kept)
            if kept.mean() < THINNER * chain.live.mean():
                work = chain.work + chain.live * (then.layer.il - chain.choices[-1].layer.il)
                if work.mean() < most:
                    yield from extend(_Chain((*chain.choices, then), work, kept, chain.passes & then.passes), j)

    for i, choice in enumerate(choices):
        work = np.full(len(choice.kept), choice.layer.il + 1.0)
        yield from extend(_Chain((choice,), work, choice.kept, choice.passes), i)
