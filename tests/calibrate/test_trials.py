"""What decides between schedules: the figures of a run, the order of the trials, and the way to decode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

pytest.importorskip("lazygguf.tools.calibrate", reason="lazygguf is not installed with its tools")

from lazygguf.tools.calibrate.probes import KINDS
from lazygguf.tools.calibrate.search import Proposal
from lazygguf.tools.calibrate.trials import (
    N_DECIDING,
    N_FIRST,
    REVIVES,
    Figures,
    Trial,
    Trials,
    Wanted,
    choose,
    figures_of,
    name_of,
    paper_rule,
    race,
    tune_decode,
)
from lazygguf.tools.eval.methods import DENSE, Method
from lazygguf.tools.eval.runner import Record

from lazygguf.schedule.keep_schedule import KeepSchedule, PruningPoint

WANTED = Wanted(target=0.99, max_kld=0.05)
SHARES = (0.4, 0.5, 0.6, 0.7)
MORE = REVIVES[0][0]
SCHEDULES = [
    KeepSchedule((PruningPoint(2, share),), max_revive=32, decode_cached=True, dense_unasked=True) for share in SHARES
]
PROPOSALS = [Proposal(schedule, share, 0.5 + share / 2) for schedule, share in zip(SCHEDULES, SHARES)]


def figures(n: int, quality: float, share: float, **others: Any) -> Figures:
    return replace(Figures(n, quality, 1.0, min(1.0, quality), {}, share, 0.0, 1.0), **others)


class FakeTrials:
    """Answers with the qualities it is given, by what is kept, and notes what is asked."""

    n_layer = 16

    def __init__(self, qualities: dict[float, float], n_affordable: int = 1000) -> None:
        self.qualities, self.n_affordable = qualities, n_affordable
        self.asked: list[tuple[list[float], int]] = []

    def affordable(self, n_times: int, deadline: float) -> int:
        return self.n_affordable // n_times

    def run(self, schedules: Sequence[KeepSchedule], n_probes: int, progress: Any) -> list[Trial]:
        self.asked.append(([s.points[0].keep for s in schedules], n_probes))
        return [self._trial(schedule, n_probes) for schedule in schedules]

    def _trial(self, schedule: KeepSchedule, n_probes: int) -> Trial:
        keep = schedule.points[0].keep
        quality = self.qualities.get(keep, 0.5) + (0.05 if schedule.max_revive == MORE else 0.0)
        return Trial(name_of(schedule), schedule, figures(n_probes * len(KINDS), quality, keep))


def raced(
    qualities: dict[float, float], n_affordable: int = 1000, wanted: Wanted = WANTED
) -> tuple[FakeTrials, list[Trial]]:
    trials = FakeTrials(qualities, n_affordable)
    return trials, race(cast(Trials, trials), PROPOSALS, wanted, 0.0, lambda n, of: None)


def test_the_cheapest_that_holds_is_found_one_by_one_and_what_costs_more_is_not_asked() -> None:
    trials, found = raced({0.4: 0.7, 0.5: 0.98, 0.6: 1.0, 0.7: 1.0})
    chosen = choose(found, WANTED)
    assert chosen is not None and chosen.schedule == SCHEDULES[2]
    assert chosen.figures.n == N_DECIDING * len(KINDS)
    decided = [keeps for keeps, n in trials.asked if n == N_DECIDING]
    assert decided == [[0.5], [0.6]]  # 0.4 fell out by the first answers, 0.5 when it was asked more


def test_all_schedules_and_the_papers_rule_are_asked_first() -> None:
    trials, _ = raced(dict.fromkeys(SHARES, 1.0))
    assert trials.asked[0] == ([*SHARES, paper_rule(cast(Trials, trials)).points[0].keep], N_FIRST)


def test_without_time_the_first_answers_decide() -> None:
    trials, found = raced(dict.fromkeys(SHARES, 1.0), n_affordable=0)
    assert len(trials.asked) == 1
    chosen = choose(found, WANTED)
    assert chosen is not None and chosen.schedule == SCHEDULES[0]


def test_with_a_share_the_surest_within_it_is_preferred_to_the_cheapest() -> None:
    within = replace(WANTED, max_share=0.62)
    _, found = raced({0.4: 1.2, 0.5: 1.1, 0.6: 1.0, 0.7: 1.5}, wanted=within)
    chosen = choose(found, within)
    assert chosen is not None and chosen.schedule == SCHEDULES[2]
    assert chosen.recall == PROPOSALS[2].recall
    chosen = choose(raced({0.4: 1.0, 0.5: 1.0, 0.6: 0.9}, wanted=within)[1], within)
    assert chosen is not None and chosen.schedule == SCHEDULES[1]


def test_with_a_share_some_that_hold_are_asked_and_the_one_that_loses_least_is_chosen() -> None:
    within = replace(WANTED, max_share=0.62, target=0.8)
    trials, found = raced({0.4: 1.0, 0.5: 1.0, 0.6: 0.85}, wanted=within)
    assert [keeps for keeps, n in trials.asked if n == N_DECIDING] == [[0.5], [0.4], [0.6]]
    chosen = choose(found, within)
    assert chosen is not None and chosen.schedule == SCHEDULES[1]


def test_what_nothing_holds_is_none() -> None:
    assert choose(raced(dict.fromkeys(SHARES, 0.97))[1], WANTED) is None


def tuned(quality_of_more: float, n_affordable: int = 1000) -> tuple[Trial, list[Trial]]:
    trials = FakeTrials({0.4: quality_of_more - 0.05}, n_affordable)
    (chosen,) = trials.run(SCHEDULES[:1], N_DECIDING, None)
    chosen = replace(chosen, figures=replace(chosen.figures, quality=1.0))
    return tune_decode(cast(Trials, trials), chosen, WANTED, 0.0, lambda n, of: None)


def test_another_way_to_decode_is_taken_where_it_is_clearly_better() -> None:
    chosen, tried = tuned(1.05)
    assert chosen.schedule is not None and chosen.schedule.max_revive == MORE
    ways = [t.schedule for t in tried if t.schedule is not None]
    assert {(s.max_revive, s.revive_margin, s.mean_revive) for s in ways[: len(REVIVES)]} == set(REVIVES)
    assert {(s.decode_cached, s.dense_unasked) for s in ways[: len(REVIVES)]} == {(True, True)}
    assert [(s.decode_cached, s.dense_unasked) for s in ways[len(REVIVES) :]] == [(False, True), (True, False)]
    assert all(s.points == chosen.schedule.points for s in ways)


def test_it_is_not_taken_where_it_does_not_hold_or_was_not_asked() -> None:
    assert tuned(0.98)[0].schedule == SCHEDULES[0]
    chosen, tried = tuned(1.05, n_affordable=0)
    assert (chosen.schedule, tried) == (SCHEDULES[0], [])


def record(method: Method, kind: str, index: int, score: float) -> Record:
    values = {"method_id": method.digest, "task": kind, "index": index, "score": score}
    return cast(Record, {**values, "n_steps": 4, "revived": 2, "token_share": 0.5})


def asked(scores: dict[str, tuple[Sequence[float], Sequence[float]]]) -> Figures:
    """The figures of a schedule from (scores, dense scores) of each kind."""
    method, dense = Method("a", "keep", SCHEDULES[0]), Method(DENSE, DENSE, None)
    records = []
    for kind, pairs in scores.items():
        for index, (score, base) in enumerate(zip(*pairs)):
            records += [record(method, kind, index, score), record(dense, kind, index, base)]
    return figures_of(records, method)


def test_the_figures_are_ratios_and_means() -> None:
    found = asked({"a": ([1.0, 0.5], [1.0, 1.0]), "b": ([1.0, 1.0], [0.5, 1.0])})
    assert (found.n, found.quality, found.share, found.rows) == (4, 1.0, 0.5, 1.5)
    assert found.by_kind == {"a": 0.75, "b": pytest.approx(4 / 3)}


def test_a_kind_that_gains_does_not_pay_for_one_that_is_lost() -> None:
    n = 20
    found = asked({"a": ([0.0] * n, [0.4] * n), "b": ([1.0] * n, [0.6] * n)})
    assert found.quality == pytest.approx(1.0)
    assert found.kept == pytest.approx(1.0 - (0.4 - 0.25 / n**0.5))
    assert found.capped == pytest.approx(0.6)
    assert not WANTED.holds(found)


def test_a_loss_within_its_error_is_none() -> None:
    n = 20
    found = asked({"a": ([0.0, *[1.0] * (n - 1)], [1.0] * n)})
    assert found.quality == pytest.approx(0.95)
    assert found.kept == 1.0
    assert found.capped == pytest.approx(0.95)
    assert WANTED.may_hold(found) and not WANTED.holds(found)
