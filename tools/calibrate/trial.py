"""Which of the proposed schedules holds: trials in rounds, each with more prompts and fewer schedules.

Owns the order of the trials, what a schedule must hold, and when there is no time for more.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Optional

from lazygguf.schedule.keep_schedule import KeepSchedule

from ..eval.engine import Engine, Reader
from ..eval.methods import DENSE, Method, paper_spelling, tested_method
from ..eval.records import AnswerFile, Record
from ..eval.runner import Plan, Run
from .probes import KINDS, ProbeSource
from .search import Proposal
from .verify import AFTER, BEFORE, Figures, ProbeQuestions, figures_of, kld_source, name_of

FIRST_VERIFIED = 1000  # index of the first probe that is not recorded
N_FIRST, N_SECOND = 2, 6  # prompts of each kind in the two rounds
N_DECIDING = 20  # of each kind, for a schedule that may be the one
N_SUREST = 3  # that hold after so many are compared where the surest is wanted
SECOND_SHARE = 0.35  # of the schedules that go on to the second round
SLACK = 0.6  # of quality that is forgiven, divided by the square root of the answers: a few say little
N_KLD = 2
# tried with the schedule that was chosen, (max_revive, revive_margin, mean_revive): more, fewer, none
REVIVES = ((128, 0.7, 16.0), (32, 2.0, 4.0), (0, 0.0, 0.0))
N_TUNING = 8  # prompts of each kind for each way to decode
CLEARLY = 0.02  # of quality that another way to decode must gain
MAX_ROWS = 3.0  # computed per decoded token
FIRST_EVERY = 6  # prompts with the question last for one with the question first
QUESTION_FIRST = 0.95  # of the dense score where the question stands before the text

Progress = Callable[[int, int], Any]


@dataclass(frozen=True)
class Wanted:
    """What a schedule must hold.

    Attributes:
        target: least quality, of the dense score.
        max_kld: of continuation tokens.
        max_share: of the dense work; None wants the least work.
    """

    target: float
    max_kld: float
    max_share: Optional[float] = None

    def holds(self, figures: Figures, slack: float = 0.0) -> bool:
        """Whether it does; slack is forgiven in quality."""
        fast = figures.rows <= MAX_ROWS + 20 * slack
        first = figures.question_first
        least = min(figures.quality, figures.kept)
        finds = least >= self.target - slack and (first is None or first >= QUESTION_FIRST - slack)
        cheap = self.max_share is None or figures.share <= self.max_share
        return finds and figures.kld <= self.max_kld and fast and cheap

    def may_hold(self, figures: Figures) -> bool:
        """Whether more answers may show that it holds."""
        return self.holds(figures, SLACK / figures.n**0.5)

    def preference(self, trial: Trial) -> tuple[float, float, float]:
        """Sorts those that hold, the preferred one first: the cheapest, or the surest of the work that is given.

        Of those that read alike the one that answers best, and then the one that decodes fastest. The surest is judged
        by what it loses in any kind: gains over the dense run are no surety, and recall in dense recordings tells
        nothing of other tasks' answers. Of those that lose alike the one that reads the most.
        """
        f = trial.figures
        if self.max_share is None:
            return round(f.share, 2), -round(f.quality, 2), f.rows
        return -round(f.capped, 2), -f.share, f.rows


@dataclass(frozen=True)
class Trial:
    """A schedule with its figures; None is the dense run. ``recall`` is its proposal's, where it has one."""

    label: str
    schedule: Optional[KeepSchedule]
    figures: Figures
    recall: Optional[float] = None


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
        counts = {AFTER: n_probes, BEFORE: n_probes // FIRST_EVERY}
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
    """All schedules' figures; schedules that fall short drop out round by round.

    After two rounds the preferred one of those that may still hold is asked ``N_DECIDING`` prompts of each kind, and
    the next one where it does not; where the surest is wanted, until ``N_SUREST`` hold. The paper's rule is asked in
    the first round, for comparison. Later rounds ask as many prompts as fit before the deadline, by the pace so far.
    """
    found = _Found(trials, proposals, wanted, progress)
    found.ask([*(proposal.schedule for proposal in proposals), paper_rule(trials)], N_FIRST)
    alive = found.alive()[: max(1, round(SECOND_SHARE * len(proposals)))]
    n_second = min(N_SECOND, N_FIRST + trials.affordable(len(alive) + 1, deadline))
    if alive and n_second > N_FIRST:
        found.ask(alive, n_second)
        found.decide(deadline)
    return list(found.trials.values())


class _Found:
    """The figures so far, by label."""

    def __init__(self, asker: Trials, proposals: Sequence[Proposal], wanted: Wanted, progress: Progress) -> None:
        self.trials: dict[str, Trial] = {}
        self._asker, self._wanted, self._progress = asker, wanted, progress
        self._recall = {name_of(proposal.schedule): proposal.recall for proposal in proposals}

    def ask(self, schedules: Sequence[KeepSchedule], n_probes: int) -> list[Trial]:
        """Asks so many prompts of each kind."""
        asked = self._asker.run(schedules, n_probes, self._progress)
        asked = [replace(trial, recall=self._recall.get(trial.label)) for trial in asked]
        self.trials.update({trial.label: trial for trial in asked})
        return asked

    def alive(self) -> list[KeepSchedule]:
        """The proposals that may hold by what is known, the preferred one first."""
        alive = [t for t in self.trials.values() if t.label in self._recall and self._wanted.may_hold(t.figures)]
        return [t.schedule for t in sorted(alive, key=self._wanted.preference) if t.schedule is not None]

    def decide(self, deadline: float) -> None:
        """Asks one after the other until one holds, or some do where the surest is wanted, or there is no time."""
        n_left = 1 if self._wanted.max_share is None else N_SUREST
        n_asked = 1 + max(2, n_left)  # dense, and two of them at least: the first may not hold
        n_probes = min(N_DECIDING, N_SECOND + self._asker.affordable(n_asked, deadline))
        for schedule in self.alive():
            if n_probes <= N_SECOND or self._asker.affordable(1, deadline) < n_probes - N_SECOND:
                return
            (trial,) = self.ask([schedule], n_probes)
            n_left -= self._wanted.holds(trial.figures)
            if n_left == 0:
                return


def paper_rule(trials: Trials) -> KeepSchedule:
    """The paper's rule at paper-like layers."""
    return KeepSchedule.paper(paper_spelling(trials.n_layer))


def choose(found: Sequence[Trial], wanted: Wanted) -> Optional[Trial]:
    """The preferred one of those that hold and were asked the most; None where none does."""
    most = max(trial.figures.n for trial in found)
    good = [t for t in found if t.figures.n == most and t.schedule is not None and wanted.holds(t.figures)]
    return min(good, key=wanted.preference, default=None)


def tune_decode(
    trials: Trials, chosen: Trial, wanted: Wanted, deadline: float, progress: Progress
) -> tuple[Trial, list[Trial]]:
    """The chosen schedule, or with another way to decode where that answers clearly better; and all that was tried.

    Other revive budgets, attending to selected rows alone, and pruning plain text too, as many as fit before the
    deadline; all are asked the same.
    """
    assert chosen.schedule is not None
    others = [
        replace(chosen.schedule, max_revive=n, revive_margin=margin, mean_revive=mean) for n, margin, mean in REVIVES
    ]
    others.append(replace(chosen.schedule, decode_cached=False))
    others.append(replace(chosen.schedule, dense_unasked=False))
    n_probes = min(N_TUNING, chosen.figures.n // len(KINDS))
    n_schedules = trials.affordable(n_probes, deadline)
    if n_schedules < 1:
        return chosen, []
    same, *tried = trials.run([chosen.schedule, *others[:n_schedules]], n_probes, progress)
    best = max(tried, key=lambda trial: trial.figures.quality if wanted.holds(trial.figures) else 0.0)
    is_better = wanted.holds(best.figures) and best.figures.quality >= same.figures.quality + CLEARLY
    return best if is_better else chosen, tried
