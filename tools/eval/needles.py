"""Retrieval tasks of RULER (arXiv:2404.06654): needles in a haystack.

Owns the ``niah_*`` tasks: RULER's sentences, templates and scoring. RULER's essay is the haystack's text, its keys are
adjective-noun pairs, its values seven-digit numbers.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from .haystack import DEPTHS, Haystack, insert_at_depths, magic_key, magic_number
from .parts import Parts


@dataclass(frozen=True)
class NeedleWording:
    """How needles are told and asked for, where several values are asked for.

    Attributes:
        needle: names ``key`` and ``value``.
        instruction: stands before the text.
        question: names ``query``, the keys that are asked for.
        answer_prefix: likewise.
        singular: what takes the place of what, in this order, where one value is asked for.
    """

    needle: str
    instruction: str
    question: str
    answer_prefix: str
    singular: tuple[tuple[str, str], ...]

    def said(self, template: str, n_values: int, query: str = "") -> str:
        """One of its templates for so many values."""
        for several, one in self.singular if n_values == 1 else ():
            template = template.replace(several, one)
        return template.format(query=query)


RULER = NeedleWording(
    needle="One of the special magic numbers for {key} is: {value}.",
    instruction=(
        "Some special magic numbers are hidden within the following text. Make sure to memorize it. "
        "I will quiz you about the numbers afterwards.\n"
    ),
    question="What are all the special magic numbers for {query} mentioned in the provided text?",
    answer_prefix="The special magic numbers for {query} mentioned in the provided text are",
    singular=(("Some", "A"), ("are all", "is"), ("are", "is"), ("numbers", "number")),
)


@dataclass(frozen=True)
class NeedleTask:
    """How many keys are planted, how many values each has, and how many keys are asked for."""

    n_keys: int = 1
    n_values: int = 1
    n_asked: int = 1

    def build(self, rng: random.Random, haystack: Haystack, depth: int, n_words: int, wording: NeedleWording) -> Parts:
        """The parts with ``n_words`` words of haystack; the first asked needle stands at ``depth`` percent."""
        needles = self._needles(rng, haystack)
        keys = list(needles)
        asked = keys[: self.n_asked]
        others = rng.sample([d for d in DEPTHS if d != depth], self.n_keys * self.n_values - 1)
        depths = iter([depth, *others])
        placed = [(next(depths), wording.needle.format(key=key, value=value)) for key in keys for value in needles[key]]
        sentences = haystack.sentences(haystack.begin(rng), n_words)
        references = tuple(value for key in asked for value in needles[key])
        query, n_asked = _list(asked), len(references)
        return Parts(
            instruction=wording.said(wording.instruction, n_asked),
            document=" ".join(insert_at_depths(sentences, placed)),
            question=wording.said(wording.question, n_asked, query),
            references=references,
            answer_prefix=wording.said(wording.answer_prefix, n_asked, query),
            depths=tuple(depth for depth, _ in placed[: len(references)]),
        )

    def _needles(self, rng: random.Random, haystack: Haystack) -> dict[str, list[str]]:
        """Values by key, all different; the asked keys come first."""
        keys: dict[str, list[str]] = {}
        seen: set[str] = set()
        while len(keys) < self.n_keys:
            key = magic_key(rng)
            if key not in keys and not haystack.holds(key):
                keys[key] = []
        for values in keys.values():
            while len(values) < self.n_values:
                value = magic_number(rng)
                if value not in seen and not haystack.holds(value):
                    seen.add(value)
                    values.append(value)
        return keys


def _list(names: list[str]) -> str:
    return ", ".join(names[:-1]) + ", and " + names[-1] if len(names) > 1 else names[0]


NIAH = {
    "niah_single": NeedleTask(),
    "niah_multikey": NeedleTask(n_keys=9),  # the asked one and 8 that look like it
    "niah_multivalue": NeedleTask(n_values=4),
    "niah_multiquery": NeedleTask(n_keys=4, n_asked=4),
}
