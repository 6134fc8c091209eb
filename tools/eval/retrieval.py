"""Tasks that ask for what stands at one place of a long text: needles in a haystack, and facts in passages.

Owns RULER's ``niah_*`` tasks (arXiv:2404.06654) and the ``qa`` task, in RULER's words and in other ones: a schedule can
fit the sentences that it was chosen with, not the task. RULER's essay is the haystack's text, its keys are
adjective-noun pairs, its values seven-digit numbers. RULER's ``qa`` needs downloaded data sets; here the passages are
pieces of the haystack with planted facts about people, in RULER's template and with its scoring. Every kind of fact
stands in about three passages, about different people, so that a kind alone does not lead to the answer.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from .prompts import DEPTHS, WORDS, Ask, Haystack, Parts, insert_at_depths

N_PASSAGES = 10


@dataclass(frozen=True)
class NeedleWording:
    """How needles are told and asked for, where several values are asked for."""

    needle: str  # names {key} and {value}
    instruction: str  # stands before the text
    question: str  # names {query}, the keys that are asked for
    answer_prefix: str  # likewise
    singular: tuple[tuple[str, str], ...]  # what takes the place of what, in this order, where one value is asked for

    def said(self, template: str, n_values: int, query: str = "") -> str:
        """One of its templates for so many values."""
        for several, one in self.singular if n_values == 1 else ():
            template = template.replace(several, one)
        return template.format(query=query)


NEEDLES = NeedleWording(
    needle="One of the special magic numbers for {key} is: {value}.",
    instruction=(
        "Some special magic numbers are hidden within the following text. Make sure to memorize it. "
        "I will quiz you about the numbers afterwards.\n"
    ),
    question="What are all the special magic numbers for {query} mentioned in the provided text?",
    answer_prefix="The special magic numbers for {query} mentioned in the provided text are",
    singular=(("Some", "A"), ("are all", "is"), ("are", "is"), ("numbers", "number")),
)
NEEDLES_REWORDED = NeedleWording(
    needle="Vault {key} opens with the combination {value}.",
    instruction="This text mentions vaults here and there.\n\n",
    question="With which combinations does vault {query} open? Give every one of them.",
    answer_prefix="Vault {query} opens with",
    singular=(("combinations", "combination"), (" Give every one of them.", "")),
)


@dataclass(frozen=True)
class NeedleTask:
    """How many keys are planted, how many values each has, and how many keys are asked for."""

    n_keys: int = 1
    n_values: int = 1
    n_asked: int = 1

    def build(self, ask: Ask, haystack: Haystack, n_words: int, wording: NeedleWording) -> Parts:
        """The parts with ``n_words`` words of haystack; the first asked needle stands at the depth of ``ask``."""
        rng = ask.rng()
        needles = self._needles(rng, haystack)
        keys = list(needles)
        asked = keys[: self.n_asked]
        others = rng.sample([depth for depth in DEPTHS if depth != ask.depth], self.n_keys * self.n_values - 1)
        depths = iter([ask.depth, *others])
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
            evidence=tuple(sentence for _, sentence in placed[: len(references)]),
        )

    def _needles(self, rng: random.Random, haystack: Haystack) -> dict[str, list[str]]:
        """Values by key, all different; the asked keys come first."""
        keys: dict[str, list[str]] = {}
        seen: set[str] = set()
        while len(keys) < self.n_keys:
            key = f"{rng.choice(WORDS['adjectives'])}-{rng.choice(WORDS['nouns'])}"
            if key not in keys and not haystack.holds(key):
                keys[key] = []
        for values in keys.values():
            while len(values) < self.n_values:
                value = str(rng.randint(1_000_000, 9_999_999))
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


@dataclass(frozen=True)
class FactKind:
    """A kind of fact about a person. The answer is one of the values, or the person."""

    values: tuple[str, ...]
    asks_person: bool = False


@dataclass(frozen=True)
class PassageWording:
    """How passages are given, and facts told and asked."""

    facts: tuple[tuple[str, str], ...]  # for each of KINDS how it is told and asked, by {name} and {value}
    title: str  # stands before a passage, names its number {i}
    instruction: str  # stands before the passages
    tail: str  # stands after them
    question: str  # names what is {asked}
    answer_prefix: str  # how an answer begins


KINDS = (
    FactKind(tuple(WORDS["cities"])),
    FactKind(tuple(WORDS["professions"])),
    FactKind(tuple(WORDS["instruments"])),
    FactKind(tuple(WORDS["dogs"])),
    FactKind(tuple(str(year) for year in range(1811, 1899))),
    FactKind(tuple(str(crowns) for crowns in range(2113, 9000, 37))),
    FactKind(tuple(WORDS["towns"]), asks_person=True),
)
_ASK = "Answer the question based on the given documents. Only give me the answer and do not output any other words."
PASSAGES = PassageWording(
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
    instruction=f"{_ASK}\n\nThe following are given documents.\n\n",
    tail=f"\n\n{_ASK}",
    question="Question: {asked}",
    answer_prefix="Answer:",
)
_ASK_REWORDED = "Reply to what is asked about the articles in a word or two."
PASSAGES_REWORDED = PassageWording(
    facts=(
        ("{name} spent all childhood in {value}.", "Where did {name} spend all childhood?"),
        ("{name} earned a living as a {value}.", "As what did {name} earn a living?"),
        ("{name} practised the {value} after supper.", "What did {name} practise after supper?"),
        ("{name} kept a hound named {value}.", "How was the hound named that {name} kept?"),
        ("{name} opened the inn in {value}.", "When did {name} open the inn?"),
        ("{name} sold the mill for {value} florins.", "For how many florins did {name} sell the mill?"),
        ("{name} restored the church of {value}.", "Who restored the church of {value}?"),
    ),
    title="Article {i}\n",
    instruction=f"{_ASK_REWORDED}\n\nHere are the articles.\n\n",
    tail=f"\n\n{_ASK_REWORDED}",
    question="{asked}",
    answer_prefix="Reply:",
)


def build_qa(ask: Ask, haystack: Haystack, n_words: int, wording: PassageWording) -> Parts:
    """The parts with ``n_words`` words of haystack in all; kinds take turns by index.

    Raises:
        ValueError: the haystack already holds the answers of a kind of fact.
    """
    rng = ask.rng()
    answering = round(ask.depth * (N_PASSAGES - 1) / 100)
    first = (ask.index - answering) % len(KINDS)  # so that the answering passage tells the kind whose turn it is
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
        depths=(ask.depth,),
        evidence=(wording.facts[kind][0].format(name=name, value=value),),
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
