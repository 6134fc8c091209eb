"""The generated tasks by name, and their questions at a length.

Owns the registry, RULER's answer lengths, and that a seed, a task, a length and an index alone decide a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Callable

from .aggregation import CHAINS, CHAINS_REWORDED, N_COMMON, N_HOPS, build_cwe, build_fwe, build_vt
from .prompts import Ask, Haystack, Parts, Prompter, Question, TaskPrompt, Wording, fit
from .retrieval import NEEDLES, NEEDLES_REWORDED, NIAH, PASSAGES, PASSAGES_REWORDED, build_qa

MIN_CODED_WORDS = 60  # of fwe: with fewer, ranks 3 to 5 have the same count

Score = Callable[[str, Sequence[str]], float]
Builder = Callable[[Ask, Haystack, int], Parts]


def string_match_all(pred: str, references: Sequence[str]) -> float:
    """RULER: the share of references that the answer contains, upper or lower case."""
    return sum(reference.lower() in pred.lower() for reference in references) / len(references)


def string_match_part(pred: str, references: Sequence[str]) -> float:
    """RULER, question answering: 1 when the answer contains any reference, upper or lower case."""
    return float(any(reference.lower() in pred.lower() for reference in references))


@dataclass(frozen=True)
class Task:
    """A generated task."""

    build: Builder  # its parts with so many units of text
    least: int  # fewest units
    max_tokens: int  # of the answer, as RULER has it
    score: Score = string_match_all  # RULER's, of an answer
    lead_in: int = 0  # tokens on top for a model that says RULER's answer prefix itself, where the answer would be cut


GENERATED = {
    **{name: Task(partial(task.build, wording=NEEDLES), 0, 128) for name, task in NIAH.items()},
    "vt": Task(partial(build_vt, wording=CHAINS), N_HOPS + 1, 30, lead_in=40),
    "cwe": Task(build_cwe, N_COMMON + 1, 120),
    "fwe": Task(build_fwe, MIN_CODED_WORDS, 50, lead_in=20),
    "qa": Task(partial(build_qa, wording=PASSAGES), 0, 32, string_match_part),
}
# The tasks that have other words: their builders with these.
REWORDED: dict[str, Builder] = {
    **{
        name: partial(NIAH[name].build, wording=NEEDLES_REWORDED)
        for name in ("niah_single", "niah_multikey", "niah_multivalue")
    },
    "vt": partial(build_vt, wording=CHAINS_REWORDED),
    "qa": partial(build_qa, wording=PASSAGES_REWORDED),
}


@dataclass(frozen=True)
class Form:
    """How generated prompts are put."""

    place: str = "after"  # the question "after" the text, "before" it or "both"
    # RULER's answer prefix follows the chat template. A model without a template gets it always
    with_prefix: bool = False
    is_reworded: bool = False  # in other words, for the tasks of REWORDED


@dataclass(frozen=True)
class GeneratedSource:
    """The questions of a generated task at one length (``prompts.Source``)."""

    task: str
    length_tokens: int  # most tokens of a prompt, template included
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
        task = GENERATED[self.task]
        build = REWORDED[self.task] if self.form.is_reworded else task.build
        ask = Ask(self.seed, self.task, self.length_tokens, index)
        try:
            return fit(partial(build, ask, self.haystack), self._count, task.least, self.length_tokens)
        except ValueError as error:
            raise ValueError(f"--length {self.length_tokens}, task {self.task}: {error}") from error

    def question(self, index: int) -> Question:
        """The question of an index."""
        parts, task = self.parts(index), GENERATED[self.task]
        name = self.task if self.form.place == "after" else f"{self.task}/{self.form.place}"
        name += "/reworded" if self.form.is_reworded else ""
        return Question(
            task=name,
            length=str(self.length_tokens),
            index=index,
            prompt=self._prompt(parts),
            references=parts.references,
            score=lambda pred: task.score(pred, parts.references),
            depths=parts.depths,
            evidence=parts.evidence,
        )

    def _count(self, parts: Parts) -> int:
        return len(self._prompt(parts).ids)

    def _prompt(self, parts: Parts) -> TaskPrompt:
        glue = "" if self.prompter.has_template else " "
        wording = Wording(answer_prefix=f"{glue}{parts.answer_prefix}" if self._is_prefixed else "")
        return self.prompter.prompt(parts.content(self.form.place), wording, self.max_tokens)
