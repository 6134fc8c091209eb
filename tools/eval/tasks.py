"""The generated tasks by name, and their questions at a length.

Owns the registry, RULER's answer lengths, and that a seed, a task, a length and an index alone decide a prompt.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Callable

from . import aggregation, needles, passages, reworded
from .aggregation import LONG, N_COMMON, N_HOPS, ChainWording, build_cwe, build_fwe, build_vt
from .haystack import Haystack, depth_of
from .metrics import string_match_all, string_match_part
from .needles import NIAH, NeedleWording
from .parts import Parts, fit
from .passages import PassageWording, build_qa
from .prompts import Prompter, Wording
from .questions import Question

Score = Callable[[str, Sequence[str]], float]
MIN_CODED_WORDS = 60  # of fwe: with fewer, ranks 3 to 5 have the same count


@dataclass(frozen=True)
class Ask:
    """What decides the content of a prompt: the same values give the same prompt."""

    seed: int
    length: int
    index: int

    def rng(self, task: str) -> random.Random:
        """Numbers that no other task, length or index shares."""
        return random.Random(f"{self.seed}/{task}/{self.length}/{self.index}")

    @property
    def depth(self) -> int:
        return depth_of(self.seed, self.index)


Builder = Callable[[str, Ask, Haystack, int], Parts]


def _niah(wording: NeedleWording, task: str, ask: Ask, haystack: Haystack, n_units: int) -> Parts:
    return NIAH[task].build(ask.rng(task), haystack, ask.depth, n_units, wording)


def _vt(wording: ChainWording, task: str, ask: Ask, haystack: Haystack, n_units: int) -> Parts:
    return build_vt(ask.rng(task), n_units, wording)


def _cwe(task: str, ask: Ask, haystack: Haystack, n_units: int) -> Parts:
    return build_cwe(ask.rng(task), haystack, ask.length >= LONG, n_units)


def _fwe(task: str, ask: Ask, haystack: Haystack, n_units: int) -> Parts:
    return build_fwe(ask.rng(task), max(8, ask.length // 50), n_units)


def _qa(wording: PassageWording, task: str, ask: Ask, haystack: Haystack, n_units: int) -> Parts:
    return build_qa(ask.rng(task), haystack, ask.index, ask.depth, n_units, wording)


@dataclass(frozen=True)
class Task:
    """A generated task.

    Attributes:
        build: its parts with so many units of text.
        least: fewest units.
        max_tokens: of the answer, as RULER has it.
        score: RULER's, of an answer.
        lead_in: tokens on top for a model that says RULER's answer prefix itself, where the answer would be cut.
    """

    build: Builder
    least: int
    max_tokens: int
    score: Score = string_match_all
    lead_in: int = 0


GENERATED = {
    **{name: Task(partial(_niah, needles.RULER), 0, 128) for name in NIAH},
    "vt": Task(partial(_vt, aggregation.RULER), N_HOPS + 1, 30, lead_in=40),
    "cwe": Task(_cwe, N_COMMON + 1, 120),
    "fwe": Task(_fwe, MIN_CODED_WORDS, 50, lead_in=20),
    "qa": Task(partial(_qa, passages.RULER), 0, 32, string_match_part),
}
# The tasks that have other words: their builders with these.
REWORDED: dict[str, Builder] = {
    **dict.fromkeys(("niah_single", "niah_multikey", "niah_multivalue"), partial(_niah, reworded.NEEDLES)),
    "vt": partial(_vt, reworded.CHAINS),
    "qa": partial(_qa, reworded.PASSAGES),
}


@dataclass(frozen=True)
class Form:
    """How generated prompts are put.

    Attributes:
        place: the question ``"after"`` the text, ``"before"`` it or ``"both"``.
        with_prefix: RULER's answer prefix follows the chat template. A model without a template gets it always.
        is_reworded: in the words of ``reworded``, for the tasks of ``REWORDED``.
    """

    place: str = "after"
    with_prefix: bool = False
    is_reworded: bool = False


@dataclass(frozen=True)
class GeneratedSource:
    """The questions of a generated task at one length (``questions.Source``).

    Attributes:
        length_tokens: most tokens of a prompt, template included.
    """

    task: str
    length_tokens: int
    n_questions: int
    seed: int
    haystack: Haystack
    prompter: Prompter
    form: Form = Form()

    @property
    def max_tokens(self) -> int:
        """Most tokens of an answer."""
        task = GENERATED[self.task]
        return task.max_tokens + (0 if self._is_prefixed else task.lead_in)

    @property
    def _is_prefixed(self) -> bool:
        return self.form.with_prefix or not self.prompter.has_template

    def parts(self, index: int) -> Parts:
        """The parts that fill the length.

        Raises:
            ValueError: the length is too short for the task, or the haystack does not serve it.
        """
        ask = Ask(self.seed, self.length_tokens, index)
        task = GENERATED[self.task]
        build = partial(self._build, ask)
        try:
            return fit(build, self._count, task.least, self.length_tokens)
        except ValueError as error:
            raise ValueError(f"--length {self.length_tokens}, task {self.task}: {error}") from error

    def _build(self, ask: Ask, n_units: int) -> Parts:
        build = REWORDED[self.task] if self.form.is_reworded else GENERATED[self.task].build
        return build(self.task, ask, self.haystack, n_units)

    def question(self, index: int) -> Question:
        """The question of an index."""
        parts, task = self.parts(index), GENERATED[self.task]
        name = self.task if self.form.place == "after" else f"{self.task}/{self.form.place}"
        name += "/reworded" if self.form.is_reworded else ""
        return Question(
            task=name,
            length=str(self.length_tokens),
            index=index,
            prompt=self.prompter.prompt(parts.content(self.form.place), self._wording(parts), self.max_tokens),
            references=parts.references,
            score=lambda pred: task.score(pred, parts.references),
            depths=parts.depths,
        )

    def _count(self, parts: Parts) -> int:
        return len(self.prompter.ids(parts.content(self.form.place), self._wording(parts)))

    def _wording(self, parts: Parts) -> Wording:
        glue = "" if self.prompter.has_template else " "
        return Wording(answer_prefix=f"{glue}{parts.answer_prefix}" if self._is_prefixed else "")
