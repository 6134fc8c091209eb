"""Retrieval tasks of RULER (arXiv:2404.06654): needles in a haystack.

Owns the ``niah_*`` tasks: RULER's sentences, templates and scoring. RULER's essay is the haystack's text, its keys are
adjective-noun pairs, its values seven-digit numbers.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from .haystack import DEPTHS, Haystack, insert_at_depths, magic_key, magic_number
from .parts import Parts

NEEDLE = "One of the special magic {type} for {key} is: {value}."
INSTRUCTION = (
    "Some special magic {type} are hidden within the following text. Make sure to memorize it. "
    "I will quiz you about the {type} afterwards.\n"
)
QUESTION = "What are all the special magic {type} for {query} mentioned in the provided text?"
ANSWER_PREFIX = "The special magic {type} for {query} mentioned in the provided text are"

_TYPE = "numbers"


@dataclass(frozen=True)
class NeedleTask:
    """How many keys are planted, how many values each has, and how many keys are asked for."""

    n_keys: int = 1
    n_values: int = 1
    n_asked: int = 1

    def build(self, rng: random.Random, haystack: Haystack, depth: int, n_words: int) -> Parts:
        """The parts with ``n_words`` words of haystack; the first asked needle stands at ``depth`` percent."""
        needles = self._needles(rng, haystack)
        keys = list(needles)
        asked = keys[: self.n_asked]
        others = rng.sample([d for d in DEPTHS if d != depth], self.n_keys * self.n_values - 1)
        depths = iter([depth, *others])
        placed = [
            (next(depths), NEEDLE.format(type=_TYPE, key=key, value=value)) for key in keys for value in needles[key]
        ]
        sentences = haystack.sentences(haystack.begin(rng), n_words)
        references = tuple(value for key in asked for value in needles[key])
        return Parts(
            instruction=self._say(INSTRUCTION),
            document=" ".join(insert_at_depths(sentences, placed)),
            question=self._say(QUESTION, _list(asked)),
            references=references,
            answer_prefix=self._say(ANSWER_PREFIX, _list(asked)),
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

    def _say(self, template: str, query: str = "") -> str:
        """RULER's template, in the singular where one value is asked for."""
        kind = _TYPE
        if self.n_asked * self.n_values == 1:
            template = template.replace("Some", "A").replace("are all", "is").replace("are", "is")
            kind = _TYPE[:-1]
        return template.format(type=kind, query=query)


def _list(names: list[str]) -> str:
    return ", ".join(names[:-1]) + ", and " + names[-1] if len(names) > 1 else names[0]


NIAH = {
    "niah_single": NeedleTask(),
    "niah_multikey": NeedleTask(n_keys=9),  # the asked one and 8 that look like it
    "niah_multivalue": NeedleTask(n_values=4),
    "niah_multiquery": NeedleTask(n_keys=4, n_asked=4),
}
