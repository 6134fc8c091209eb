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
INSTRUCTION = (
    "Answer the question based on the given documents. Only give me the answer and do not output any other words.\n\n"
    "The following are given documents.\n\n"
)
TAIL = (
    "\n\nAnswer the question based on the given documents. Only give me the answer and do not output any other words."
)
ANSWER_PREFIX = "Answer:"


@dataclass(frozen=True)
class FactKind:
    """A kind of fact about a person: how it is told and asked. The answer is ``value``, or the person."""

    told: str
    asked: str
    values: tuple[str, ...]
    asks_person: bool = False


KINDS = (
    FactKind("{name} was born in {value}.", "In which city was {name} born?", tuple(WORDS["cities"])),
    FactKind("{name} worked as a {value}.", "What did {name} work as?", tuple(WORDS["professions"])),
    FactKind(
        "{name} played the {value} every evening.", "Which instrument did {name} play?", tuple(WORDS["instruments"])
    ),
    FactKind("{name} had a dog called {value}.", "What was the name of {name}'s dog?", tuple(WORDS["dogs"])),
    FactKind(
        "{name} moved into the lighthouse in {value}.",
        "In which year did {name} move into the lighthouse?",
        tuple(str(year) for year in range(1811, 1899)),
    ),
    FactKind(
        "{name} paid {value} crowns for the house.",
        "How many crowns did {name} pay for the house?",
        tuple(str(crowns) for crowns in range(2113, 9000, 37)),
    ),
    FactKind(
        "{name} designed the bridge of {value}.", "Who designed the bridge of {value}?", tuple(WORDS["towns"]), True
    ),
)


def build_qa(rng: random.Random, haystack: Haystack, index: int, depth: int, n_words: int) -> Parts:
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
    values = [_values(rng, haystack, kind) for kind in KINDS]
    kinds = [((first + i) % len(KINDS), (first + i + 3) % len(KINDS)) for i in range(N_PASSAGES)]
    begin = haystack.begin(rng)
    passages = []
    for i, name in enumerate(people):
        facts = [KINDS[kind].told.format(name=name, value=values[kind][i]) for kind in kinds[i]]
        bounds = (n_words * i // N_PASSAGES, n_words * (i + 1) // N_PASSAGES)
        sentences = haystack.sentences(begin + bounds[0], bounds[1] - bounds[0])
        passages.append(f"Document {i + 1}:\n{_planted(rng, sentences, facts)}")
    asked = kinds[answering][0]
    name, value = people[answering], values[asked][answering]
    return Parts(
        instruction=INSTRUCTION,
        document="\n\n".join(passages) + TAIL,
        question=f"Question: {KINDS[asked].asked.format(name=name, value=value)}",
        references=(name if KINDS[asked].asks_person else value,),
        answer_prefix=ANSWER_PREFIX,
        depths=(depth,),
    )


def _values(rng: random.Random, haystack: Haystack, kind: FactKind) -> list[str]:
    """A different value for each passage, none of which the haystack holds."""
    usable = haystack.absent(kind.values)
    if len(usable) < N_PASSAGES:
        raise ValueError(f'{haystack.name} already holds answers to "{kind.asked}"; give another text with -f')
    return rng.sample(usable, N_PASSAGES)


def _planted(rng: random.Random, sentences: list[str], facts: Sequence[str]) -> str:
    text = list(sentences)
    for fact in facts:
        text.insert(rng.randrange(len(text) + 1), fact)
    return " ".join(text)
