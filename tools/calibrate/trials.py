"""Which of the proposed schedules holds: trials in rounds, each with more prompts and fewer schedules.

Owns the order of the trials, what a schedule must hold, when there is no time for more, and the figures that decide:
the answers' score as a share of the dense one's, the divergence of continuation, the share of the work, the rows that a
decoded token costs. Schedules are asked fresh probes in the engine with ``eval``'s runner, so that answers are kept,
found again, and compared question by question.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from lazygguf.schedule.keep_schedule import KeepSchedule

from ..eval.engine import Engine, Reader
from ..eval.kld import KldSource
from ..eval.methods import DENSE, Method, paper_spelling, tested_method
from ..eval.prompts import KLD, Question
from ..eval.runner import AnswerFile, Plan, Record, Run
from .probes import AFTER, BEFORE, FIRST_FRESH, KINDS, ProbeSource
from .search import Proposal

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
LEAST_SPREAD = 0.25  # standard deviation of differences between scores of a kind: a few that are alike do not tell it

Progress = Callable[[int, int], Any]


@dataclass(frozen=True)
class Figures:
    """What a schedule does on the probes it was verified with."""

    n: int  # answers
    quality: float  # mean score divided by the dense mean score
    # the same where gains in one kind do not pay for losses in another. A loss counts as far as it is beyond its
    # standard error, so that kept is 1 where nothing is known to be lost
    kept: float
    capped: float  # the same where a kind counts at most as its dense score; what chance takes is not forgiven
    by_kind: dict[str, Optional[float]]  # quality of each kind; None where the dense model answers none
    share: float  # of the dense work of reading the prompts, measured
    kld: float  # mean divergence of continuation tokens from the dense run
    rows: float  # computed per decoded token, the new one and those brought back
    # quality where the question stands before the text; None where that was not asked. Such prompts count in no other
    # figure
    question_first: Optional[float] = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, rounded to what they are worth."""
        values = {key: round(v, 4) if isinstance(v, float) else v for key, v in asdict(self).items()}
        kinds = {kind: None if ratio is None else round(ratio, 3) for kind, ratio in self.by_kind.items()}
        return {**values, "by_kind": kinds}


@dataclass(frozen=True)
class Wanted:
    """What a schedule must hold."""

    target: float  # least quality, of the dense score
    max_kld: float  # of continuation tokens
    max_share: Optional[float] = None  # of the dense work; None wants the least work

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
class ProbeQuestions:
    """The probes of one kind and place as questions (``eval.prompts.Source``), from an index on, lengths in turn."""

    probes: ProbeSource
    kind: str
    place: str
    first: int
    n_questions: int
    lengths: Sequence[int]

    @property
    def task(self) -> str:
        """Kind and place."""
        return f"{self.kind}/{self.place}"

    def question(self, index: int) -> Question:
        """The question of an index."""
        length = self.lengths[index % len(self.lengths)]
        question = self.probes.probe(self.kind, self.place, self.first + index, length).question
        return Question(self.task, str(length), index, question.prompt, question.references, question.score)


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
            ProbeQuestions(setting.probes, kind, place, FIRST_FRESH, n, setting.lengths)
            for kind in KINDS
            for place, n in counts.items()
        ]
        text = setting.probes.haystack, setting.probes.prompter
        sources.append(KldSource(N_KLD, setting.seed, setting.lengths[0], *text))
        readers = [self._reader(method) for method in methods]
        run = Run(Plan(sources, readers, setting.engine.settings, setting.seed), self._answers)
        run.all(progress)
        self._answer_s = sum(r["ttft_s"] + r["decode_s"] for r in run.records) / len(run.records)
        return [Trial(method.label, method.schedule, figures_of(run.records, method)) for method in methods[1:]]

    def _reader(self, method: Method) -> Reader:
        if method.digest not in self._readers:
            self._readers[method.digest] = self._setting.engine.reader(method)
        return self._readers[method.digest]


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


def name_of(schedule: KeepSchedule) -> str:
    """The spelling, and a mark that tells schedules of one spelling apart."""
    digest = hashlib.sha256(json.dumps(schedule.to_dict(), sort_keys=True).encode()).hexdigest()
    return f"{schedule} #{digest[:4]}"


def decode_way(schedule: Optional[KeepSchedule]) -> str:
    """How a schedule decodes, which its spelling does not say; "" for the dense run."""
    if schedule is None:
        return ""
    way = f"{schedule.max_revive},{schedule.revive_margin:g},{schedule.mean_revive:g}"
    way += "" if schedule.decode_cached else ", selected rows alone"
    return way + ("" if schedule.dense_unasked else ", plain text pruned")


def figures_of(records: Sequence[Record], method: Method) -> Figures:
    """The figures of one method, from the records of a run that asked the dense method too.

    Raises:
        ValueError: nothing was asked of both.
    """
    dense_id = Method(DENSE, DENSE, None).digest
    dense = {(r["task"], r["index"]): r["score"] for r in records if r["method_id"] == dense_id}
    mine = [r for r in records if r["method_id"] == method.digest and (r["task"], r["index"]) in dense]
    first = [r for r in mine if r["task"].endswith(BEFORE)]
    mine = [r for r in mine if not r["task"].endswith(BEFORE)]
    asked = [r for r in mine if r["task"] != KLD]
    if not asked:
        raise ValueError(f"no answer of {method.label} beside a dense one")
    followed = [r for r in mine if r["task"] == KLD]
    by_kind: dict[str, list[tuple[float, float]]] = {}
    for r in asked:
        by_kind.setdefault(r["task"], []).append((r["score"], dense[r["task"], r["index"]]))
    kinds = list(by_kind.values())
    steps = sum(r["n_steps"] for r in mine)
    return Figures(
        n=len(asked),
        quality=_ratio([pair for pairs in kinds for pair in pairs]) or 0.0,
        kept=_kept(kinds),
        capped=_capped(kinds),
        by_kind={kind: _ratio(pairs) for kind, pairs in by_kind.items()},
        share=float(np.mean([r["token_share"] for r in asked])),
        kld=float(np.mean([v for r in followed for v in r["divergence"]["kld"]])) if followed else 0.0,
        rows=1.0 + sum(r["revived"] for r in mine) / max(1, steps),
        question_first=_ratio([(r["score"], dense[r["task"], r["index"]]) for r in first]) if first else None,
    )


def _ratio(pairs: Sequence[tuple[float, float]]) -> Optional[float]:
    scores, base = (sum(values) for values in zip(*pairs))
    return scores / base if base else None


def _kept(kinds: Sequence[Sequence[tuple[float, float]]]) -> float:
    """``Figures.kept`` of the pairs (score, dense score) of each kind."""
    lost = dense = 0.0
    for pairs in kinds:
        differences = np.array([score - base for score, base in pairs])
        spread = float(differences.std(ddof=1)) if len(pairs) > 1 else LEAST_SPREAD
        error = max(LEAST_SPREAD, spread) / len(pairs) ** 0.5
        lost += max(0.0, -float(differences.mean()) - error)
        dense += float(np.mean([base for _, base in pairs]))
    return 1.0 - lost / dense if dense else 0.0


def _capped(kinds: Sequence[Sequence[tuple[float, float]]]) -> float:
    """``Figures.capped`` of the pairs (score, dense score) of each kind."""
    means = [np.mean(pairs, axis=0) for pairs in kinds]
    dense = sum(float(base) for _, base in means)
    return sum(float(min(score, base)) for score, base in means) / dense if dense else 0.0
