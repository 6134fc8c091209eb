"""Which of the proposed schedules holds: trials in rounds, each with more prompts and fewer schedules.

Owns the order of the trials, what a schedule must hold, and when there is no time for more.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Optional

from lazygguf.schedule import KeepSchedule

from ..eval.engine import Engine, Reader
from ..eval.methods import DENSE, Method, paper_spelling, tested_method
from ..eval.records import AnswerFile, Record
from ..eval.runner import Plan, Run
from .probes import KINDS, ProbeSource
from .search import Proposal
from .verify import AFTER, BEFORE, Figures, ProbeQuestions, figures_of, kld_source, name_of

FIRST_VERIFIED = 1000  # index of the first probe that is not recorded
ROUNDS = ((1, 1.0), (3, 0.4), (6, 0.2))  # prompts of each kind so far, share of the schedules that are asked
SLACK = 0.06  # of quality that a first round forgives: a few prompts say little
N_KLD = 2
REVIVES = ((0, 0.0), (3, 0.0))  # budgets and margins that are tried with the schedule that was chosen
MAX_ROWS = 3.0  # computed per decoded token
QUESTION_FIRST = 0.95  # of the dense score where the question stands before the text

Progress = Callable[[int, int], Any]


@dataclass(frozen=True)
class Wanted:
    """What a schedule must hold."""

    target: float
    max_kld: float

    def holds(self, figures: Figures, slack: float = 0.0) -> bool:
        """Whether it does; slack is forgiven in quality."""
        fast = figures.rows <= MAX_ROWS + 20 * slack
        first = figures.question_first
        finds = figures.quality >= self.target - slack and (first is None or first >= QUESTION_FIRST - slack)
        return finds and figures.kld <= self.max_kld and fast


@dataclass(frozen=True)
class Trial:
    """A schedule with its figures; None is the dense run."""

    label: str
    schedule: Optional[KeepSchedule]
    figures: Figures


@dataclass(frozen=True)
class Setting:
    """What trials are made of."""

    engine: Engine
    probes: ProbeSource
    lengths: Sequence[int]
    seed: int
    folder: Path


class Trials:
    """Asks schedules; answers are kept in a folder and not asked twice."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._answers = AnswerFile(setting.folder, setting.engine.identity)
        self._readers: dict[str, Reader] = {}
        self._answer_s = 0.0  # seconds of an answer, by the last run

    def affordable(self, n_times: int, deadline: float) -> int:
        """How many prompts of each kind, each asked so many times, fit before the deadline by the pace so far."""
        left = max(0.0, deadline - time.monotonic())
        return int(left / (self._answer_s * len(KINDS) * n_times))

    @property
    def n_layer(self) -> int:
        """Layers of the model."""
        return self._setting.engine.shape.n_layer

    def run(self, schedules: Sequence[KeepSchedule], n_probes: int, progress: Progress) -> list[Trial]:
        """The figures of the schedules with ``n_probes`` of each kind, in their order."""
        setting, n_layer = self._setting, self.n_layer
        draft = setting.engine.draft_identity
        methods = [tested_method(DENSE, None, n_layer)]
        methods += [tested_method(name_of(s), s, n_layer, draft) for s in schedules]
        counts = {AFTER: n_probes, BEFORE: 1 if n_probes > 1 else 0}
        sources: list[Any] = [
            ProbeQuestions(setting.probes, kind, place, FIRST_VERIFIED, n, setting.lengths)
            for kind in KINDS
            for place, n in counts.items()
        ]
        sources.append(kld_source(setting.probes, N_KLD, setting.seed, setting.lengths[0]))
        readers = [self._reader(method) for method in methods]
        run = Run(Plan(sources, readers, setting.engine.settings, setting.seed), self._answers)
        run.all(progress)
        self._answer_s = sum(r["ttft_s"] + r["decode_s"] for r in run.records) / len(run.records)
        return [self._trial(run.records, method) for method in methods[1:]]

    def _reader(self, method: Method) -> Reader:
        if method.digest not in self._readers:
            self._readers[method.digest] = self._setting.engine.reader(method)
        return self._readers[method.digest]

    @staticmethod
    def _trial(records: Sequence[Record], method: Method) -> Trial:
        return Trial(method.label, method.schedule, figures_of(records, method))


def race(
    trials: Trials, proposals: Sequence[Proposal], wanted: Wanted, deadline: float, progress: Progress
) -> list[Trial]:
    """All schedules' figures, the most asked last; schedules that fall short drop out round by round.

    The cheapest ones that may still hold go on. The paper's rule is asked in the first round, for comparison. A later
    round asks as many prompts as fit before the deadline, by the pace so far.
    """
    schedules = [proposal.schedule for proposal in proposals]
    found: dict[str, Trial] = {}
    n_asked = 0
    for n_most, share in ROUNDS:
        if found:
            alive = [t for t in found.values() if t.schedule in schedules and wanted.holds(t.figures, SLACK)]
            alive.sort(key=lambda trial: trial.figures.share)
            schedules = [t.schedule for t in alive if t.schedule][: max(1, round(share * len(proposals)))]
        n_probes = n_most if not found else min(n_most, n_asked + trials.affordable(len(schedules) + 1, deadline))
        if not schedules or n_probes <= n_asked:
            break
        asked = schedules if found else [*schedules, paper_rule(trials)]
        for trial in trials.run(asked, n_probes, progress):
            found[trial.label] = trial
        n_asked = n_probes
    return list(found.values())


def paper_rule(trials: Trials) -> KeepSchedule:
    """The paper's rule at paper-like layers."""
    return KeepSchedule.paper(paper_spelling(trials.n_layer))


def choose(found: Sequence[Trial], wanted: Wanted) -> Optional[Trial]:
    """The cheapest that holds among those asked the most; None where none does.

    Of those that read alike, the one that answers best, and then the one that decodes fastest.
    """
    most = max(trial.figures.n for trial in found)
    good = [t for t in found if t.figures.n == most and t.schedule is not None and wanted.holds(t.figures)]

    def cost(trial: Trial) -> tuple[float, float, float]:
        return round(trial.figures.share, 2), -round(trial.figures.quality, 2), trial.figures.rows

    return min(good, key=cost, default=None)


def tune_decode(trials: Trials, chosen: Trial, deadline: float, progress: Progress) -> list[Trial]:
    """The chosen schedule with other revive budgets, attending to selected rows alone, and pruning plain text too.

    As many of them as fit before the deadline; each is asked what the chosen one was.
    """
    assert chosen.schedule is not None
    n_probes = chosen.figures.n // len(KINDS)
    others = [replace(chosen.schedule, max_revive=n, revive_margin=margin) for n, margin in REVIVES]
    others.append(replace(chosen.schedule, decode_cached=False))
    others.append(replace(chosen.schedule, dense_unasked=False))
    n_schedules = trials.affordable(n_probes, deadline)
    return trials.run(others[:n_schedules], n_probes, progress) if n_schedules > 0 else []
