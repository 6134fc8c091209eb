"""The prompts that a model is calibrated with: questions about a long text, with the words that answer them.

Owns the kinds of questions, and where a probe's evidence stands, so that it can be asked at which layers a model sees
it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Callable

from ..eval.prompts import Haystack, Parts, Prompter, Question, TaskPrompt, Wording, depth_of, fit
from ..eval.tasks import string_match_all
from .facts import (
    N_ALIKE,
    Fact,
    Planted,
    build_chain,
    build_meaning,
    build_relay,
    build_sections,
    build_several,
    build_shown,
    build_single,
    build_source,
    build_values,
)

MAX_ANSWER, MAX_LISTED = 24, 64  # tokens: of one answer, and of several
AFTER, BEFORE = "after", "before"  # the text: places of a question
FIRST_FRESH = 1000  # index of the first probe that is not recorded for a search

Builder = Callable[[random.Random, Haystack, int, int], Planted]
KINDS: dict[str, Builder] = {
    "single": build_single,
    "alike": partial(build_single, n_alike=N_ALIKE),
    "meaning": build_meaning,
    "several": build_several,
    "chain": build_chain,
    "sections": build_sections,
    "source": build_source,
    "values": build_values,
    "relay": build_relay,
    "shown": build_shown,
}
# What a draft is calibrated with: it is to find a tenth of the text, and what the others ask for is often more.
DRAFT_KINDS = ("single", "alike", "meaning", "several", "chain", "sections", "source")


@dataclass(frozen=True)
class Probe:
    """A prompt with what is expected and where it stands."""

    name: str  # kind, place of the question and index
    kind: str
    question: Question  # what is asked, for the engine
    # for each fact that answers, the positions of the tokens that are needed of it
    evidence: tuple[tuple[int, ...], ...]


class ProbeSource:
    """Makes probes for one model; a seed, a kind, a place and an index alone decide one."""

    def __init__(self, haystack: Haystack, prompter: Prompter, seed: int) -> None:
        self.haystack, self.prompter, self._seed = haystack, prompter, seed

    def probe(self, kind: str, place: str, index: int, length: int) -> Probe:
        """A probe of at most ``length`` tokens, the question ``"after"`` or ``"before"`` the text."""
        found: dict[Parts, Planted] = {}

        def build(n_units: int) -> Parts:
            rng = random.Random(f"{self._seed}/{kind}/{place}/{index}")
            planted = KINDS[kind](rng, self.haystack, depth_of(self._seed, index), n_units)
            found[planted.parts] = planted
            return planted.parts

        parts = fit(build, lambda p: len(self.prompter.prompt(p.content(place), Wording(), 0).ids), N_ALIKE, length)
        return self._finished(f"{kind}/{place}/{index}", kind, found[parts], place)

    def in_turn(self, lengths: Sequence[int]) -> Callable[[str, int], Probe]:
        """Makes the probe of a kind and index, the question after the text; the lengths take turns."""
        return lambda kind, index: self.probe(kind, AFTER, index, lengths[index % len(lengths)])

    def _finished(self, name: str, kind: str, planted: Planted, place: str) -> Probe:
        content, references = planted.parts.content(place), planted.parts.references
        prompt = self.prompter.prompt(content, Wording(), MAX_ANSWER if len(references) == 1 else MAX_LISTED)
        question = Question(name, "", 0, prompt, references, partial(string_match_all, references=references))
        return Probe(name, kind, question, tuple(self._positions(prompt, fact) for fact in planted.evidence))

    def _positions(self, prompt: TaskPrompt, fact: Fact) -> tuple[int, ...]:
        """Positions of the tokens that hold any byte of the needed words."""
        pieces = [self.prompter.tokenizer.piece(token, special=True) for token in prompt.ids]
        begin = b"".join(pieces).find(fact.sentence.encode())
        if begin < 0:
            raise ValueError(f"the prompt does not hold {fact.sentence!r}")
        needed: list[tuple[int, int]] = []
        for word in fact.needed:
            at = begin + fact.sentence.encode().find(word.encode())
            needed.append((at, at + len(word.encode())))
        positions, end = [], 0
        for pos, piece in enumerate(pieces):
            first, end = end, end + len(piece)
            if any(first < stop and start < end for start, stop in needed):
                positions.append(pos)
        return tuple(positions)
