"""Question answering over ten passages, one of which answers.

Owns the ``qa`` task. RULER's ``qa`` needs downloaded data sets; here the passages are pieces of the haystack with
planted facts about people, in RULER's template and with its scoring. Every kind of fact stands in about three
passages, about different people, so that a kind alone does not lead to the answer.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from .haystack import WORDS, Haystack
from .parts import Parts

N_PASSAGES = 10


@dataclass(frozen=True)
class FactKind:
    """A kind of fact about a person. The answer is one of the values, or the person."""

    values: tuple[str, ...]
    asks_person: bool = False


@dataclass(frozen=True)
class PassageWording:
    """How passages are given, and facts told and asked.

    Attributes:
        facts: for each of ``KINDS`` how it is told and asked, by ``name`` and ``value``.
        title: stands before a passage, names its number ``i``.
        instruction: stands before the passages.
        tail: stands after them.
        question: names what is ``asked``.
        answer_prefix: how an answer begins.
    """

    facts: tuple[tuple[str, str], ...]
    title: str
    instruction: str
    tail: str
    question: str
    answer_prefix: str


KINDS = (
    FactKind(tuple(WORDS["cities"])),
    FactKind(tuple(WORDS["professions"])),
    FactKind(tuple(WORDS["instruments"])),
    FactKind(tuple(WORDS["dogs"])),
    FactKind(tuple(str(year) for year in range(1811, 1899))),
    FactKind(tuple(str(crowns) for crowns in range(2113, 9000, 37))),
    FactKind(tuple(WORDS["towns"]), asks_person=True),
)
_ASKED = "Answer the question based on the given documents. Only give me the answer and do not output any other words."
RULER = PassageWording(
    facts=(
        ("{name} was born in {value}.", "In which city was {name} born?"),
        ("{name} worked as a {value}.", "What did {name} work as?"),
        ("{name} played the {value} every evening.", "Which instrument did {name} play?"),
        ("{name} had a dog called {value}.", "What was the name of {name}'s dog?"),
        ("{name} moved into the lighthouse in {value}.", "In which year did {name} move into the lighthouse?"),
        ("{name} paid {value} crowns for the house.", "How many crowns did {name} pay for the house?"),
        ("{name} designed the bridge of {value}.", "Who designed the bridge of {value}?"),
    ),
    title="Document {i}:\n",
    instruction=f"{_ASKED}\n\nThe following are given documents.\n\n",
    tail=f"\n\n{_ASKED}",
    question="Question: {asked}",
    answer_prefix="Answer:",
)


def build_qa(
    rng: random.Random, haystack: Haystack, index: int, depth: int, n_words: int, wording: PassageWording
) -> Parts:
    """The parts with ``n_words`` words of haystack in all; kinds take turns by index.

    Raises:
        ValueError: the haystack already holds the answers of a kind of fact.
    """
    answering = round(depth * (N_PASSAGES - 1) / 100)
    first = (index - answering) % len(KINDS)  # so that the answering passage tells the kind whose turn it is
    people = [
        f"{a} {b}"
        for a, b in zip(rng.sample(WORDS["first_names"], N_PASSAGES), rng.sample(WORDS["last_names"], N_PASSAGES))
    ]
    values = [_values(rng, haystack, kind, asked) for kind, (_, asked) in zip(KINDS, wording.facts)]
    kinds = [((first + i) % len(KINDS), (first + i + 3) % len(KINDS)) for i in range(N_PASSAGES)]
    begin = haystack.begin(rng)
    passages = []
    for i, name in enumerate(people):
        facts = [wording.facts[kind][0].format(name=name, value=values[kind][i]) for kind in kinds[i]]
        bounds = (n_words * i // N_PASSAGES, n_words * (i + 1) // N_PASSAGES)
        sentences = haystack.sentences(begin + bounds[0], bounds[1] - bounds[0])
        passages.append(wording.title.format(i=i + 1) + _planted(rng, sentences, facts))
    kind = kinds[answering][0]
    name, value = people[answering], values[kind][answering]
    return Parts(
        instruction=wording.instruction,
        document="\n\n".join(passages) + wording.tail,
        question=wording.question.format(asked=wording.facts[kind][1].format(name=name, value=value)),
        references=(name if KINDS[kind].asks_person else value,),
        answer_prefix=wording.answer_prefix,
        depths=(depth,),
    )


def _values(rng: random.Random, haystack: Haystack, kind: FactKind, asked: str) -> list[str]:
    """A different value for each passage, none of which the haystack holds."""
    usable = haystack.absent(kind.values)
    if len(usable) < N_PASSAGES:
        raise ValueError(f'{haystack.name} already holds answers to "{asked}"; give another text with -f')
    return rng.sample(usable, N_PASSAGES)


def _planted(rng: random.Random, sentences: list[str], facts: Sequence[str]) -> str:
    text = list(sentences)
    for fact in facts:
        text.insert(rng.randrange(len(text) + 1), fact)
    return " ".join(text)
