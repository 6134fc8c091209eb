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
from ..eval.methods import Method, paper_spelling
from ..eval.records import AnswerFile, Record
from ..eval.runner import Plan, Run
from .probes import KINDS, ProbeSource
from .search import Proposal
from .verify import Figures, ProbeQuestions, figures_of, kld_source, method_of, name_of

FIRST_VERIFIED = 1000  # index of the first probe that is not recorded
ROUNDS = ((1, 1.0), (3, 0.4), (6, 0.2))  # prompts of each kind so far, share of the schedules that are asked
SLACK = 0.06  # of quality that a first round forgives: a few prompts say little
N_KLD = 2
REVIVES = ((0, 0.0), (1, 0.0))  # budgets and margins that are tried with the schedule that was chosen
MAX_ROWS = 3.0  # computed per decoded token

Progress = Callable[[int, int], Any]


@dataclass(frozen=True)
class Wanted:
    """What a schedule must hold."""

    target: float
    max_kld: float

    def holds(self, figures: Figures, slack: float = 0.0) -> bool:
        """Whether it does; slack is forgiven in quality."""
        fast = figures.rows <= MAX_ROWS + 20 * slack
        return figures.quality >= self.target - slack and figures.kld <= self.max_kld and fast


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
    length: int
    seed: int
    folder: Path


class Trials:
    """Asks schedules; answers are kept in a folder and not asked twice."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._answers = AnswerFile(setting.folder, setting.engine.identity)
        self._readers: dict[str, Reader] = {}

    @property
    def n_layer(self) -> int:
        """Layers of the model."""
        return self._setting.engine.shape.n_layer

    def run(self, schedules: Sequence[KeepSchedule], n_probes: int, progress: Progress) -> list[Trial]:
        """The figures of the schedules with ``n_probes`` of each kind, in their order."""
        setting, n_layer = self._setting, self.n_layer
        methods = [method_of("dense", None, n_layer), *(method_of(name_of(s), s, n_layer) for s in schedules)]
        sources: list[Any] = [
            ProbeQuestions(setting.probes, kind, "after", FIRST_VERIFIED, n_probes, setting.length) for kind in KINDS
        ]
        sources.append(kld_source(setting.probes, N_KLD, setting.seed, setting.length))
        readers = [self._reader(method) for method in methods]
        run = Run(Plan(sources, readers, setting.engine.settings, setting.seed), self._answers)
        run.all(progress)
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

    The cheapest ones that may still hold go on. The paper's rule is asked in the first round, for comparison.
    """
    schedules = [proposal.schedule for proposal in proposals]
    found: dict[str, Trial] = {}
    for n_probes, share in ROUNDS:
        if found:
            alive = [t for t in found.values() if t.schedule in schedules and wanted.holds(t.figures, SLACK)]
            alive.sort(key=lambda trial: trial.figures.share)
            schedules = [t.schedule for t in alive if t.schedule][: max(1, round(share * len(proposals)))]
        if not schedules or (found and time.monotonic() > deadline):
            break
        asked = schedules if found else [*schedules, paper_rule(trials)]
        for trial in trials.run(asked, n_probes, progress):
            found[trial.label] = trial
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


def tune_decode(trials: Trials, chosen: Trial, n_probes: int, wanted: Wanted, progress: Progress) -> list[Trial]:
    """The chosen schedule with other revive budgets, attending to selected rows alone, and pruning plain text too."""
    assert chosen.schedule is not None
    others = [replace(chosen.schedule, max_revive=n, revive_margin=margin) for n, margin in REVIVES]
    others.append(replace(chosen.schedule, decode_cached=False))
    others.append(replace(chosen.schedule, dense_unasked=False))
    return trials.run(others, n_probes, progress)
