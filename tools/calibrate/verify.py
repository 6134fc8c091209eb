"""Runs schedules in the engine on fresh probes: what holds, and at what cost.

Owns the figures that decide between schedules: the answers' score as a share of the dense one's, the divergence of
continuation, the share of the work, the rows that a decoded token costs. It asks with ``eval``'s runner, so that
answers are kept, found again, and compared question by question.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Optional

import numpy as np

from lazygguf.schedule.keep_schedule import KeepSchedule

from ..eval.kld import KldSource
from ..eval.methods import DENSE, Method
from ..eval.questions import KLD, Question, Source
from ..eval.records import Record
from .probes import ProbeSource

LEAST_SPREAD = 0.25  # standard deviation of differences between scores of a kind: a few that are alike do not tell it
AFTER, BEFORE = "after", "before"  # the text: places of a question


@dataclass(frozen=True)
class Figures:
    """What a schedule does on the probes it was verified with.

    Attributes:
        n: answers.
        quality: mean score divided by the dense mean score.
        kept: the same where gains in one kind do not pay for losses in another. A loss counts as far as it is beyond
            its standard error, so that ``kept`` is 1 where nothing is known to be lost.
        capped: the same where a kind counts at most as its dense score; what chance takes is not forgiven.
        by_kind: quality of each kind; None where the dense model answers none.
        share: of the dense work of reading the prompts, measured.
        kld: mean divergence of continuation tokens from the dense run.
        rows: computed per decoded token, the new one and those brought back.
        question_first: quality where the question stands before the text; None where that was not asked. Such
            prompts count in no other figure.
    """

    n: int
    quality: float
    kept: float
    capped: float
    by_kind: dict[str, Optional[float]]
    share: float
    kld: float
    rows: float
    question_first: Optional[float] = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, rounded to what they are worth."""
        values = {key: round(v, 4) if isinstance(v, float) else v for key, v in asdict(self).items()}
        kinds = {kind: None if ratio is None else round(ratio, 3) for kind, ratio in self.by_kind.items()}
        return {**values, "by_kind": kinds}


@dataclass(frozen=True)
class ProbeQuestions:
    """The probes of one kind and place as questions (``eval.questions.Source``), from an index on, lengths in turn."""

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


def kld_source(probes: ProbeSource, n_questions: int, seed: int, length: int) -> Source:
    """Plain continuation of the haystack."""
    return KldSource(n_questions, seed, length, probes.haystack, probes.prompter)
