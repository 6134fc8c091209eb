"""The prompts that a model is calibrated with: questions about a long text, with the words that answer them.

Owns the kinds of facts, their wordings and their questions. They are not those of ``eval``, whose figures are to tell
whether what is found here holds elsewhere. A probe knows where its evidence stands, so that it can be asked at which
layers a model sees it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Callable

from ..eval.haystack import WORDS, Haystack, depth_of, insert_at_depths
from ..eval.metrics import string_match_all
from ..eval.parts import Parts, fit
from ..eval.prompts import Prompt, Prompter, Wording
from ..eval.questions import Question

N_ALIKE = 8  # facts of the same form about others
N_SEVERAL = 3  # values that are asked for together
N_HOPS = 3  # of a chain, after its first name
N_SECTIONS = 8
MAX_ANSWER = 24  # tokens


@dataclass(frozen=True)
class Fact:
    """A sentence that is planted, and the words in it that an answer needs."""

    sentence: str
    needed: tuple[str, ...]


@dataclass(frozen=True)
class Planted:
    """A question about a text with facts in it.

    Attributes:
        parts: the text, the question and the expected strings.
        evidence: the facts that answer.
    """

    parts: Parts
    evidence: tuple[Fact, ...]


FORMS = (
    ("The locker number of {who} is {value}.", "What is the locker number of {who}?"),
    ("{who} wrote the report {value}.", "What is the number of the report that {who} wrote?"),
    ("The telephone extension of {who} is {value}.", "What is the telephone extension of {who}?"),
    ("That day {who} was paid {value} crowns.", "How many crowns was {who} paid?"),
)
WORD_FORMS = (
    ("{who} spent the winter in {value}.", "Where did {who} spend the winter?", "cities"),
    ("{who} learned to play the {value}.", "What did {who} learn to play?", "instruments"),
    ("{who} always wanted to be a {value}.", "What did {who} always want to be?", "professions"),
    ("{who} comes from {value}.", "Where does {who} come from?", "towns"),
)
# asked in other words than told: what matters cannot be found by its words alone
MEANING_FORMS = (
    ("The ferry leaves at {value}.", "When does the boat depart?", "times"),
    ("Our physician is called {value}.", "What is the name of the doctor?", "last_names"),
    ("The little girl was {value} years old.", "What was the age of the child?", "ages"),
    ("The automobile was {value} all over.", "Which colour did the car have?", "colours"),
    ("They purchased a {value} for the kitchen.", "What did the family buy?", "goods"),
)
MEANING_VALUES = {
    "times": tuple(f"{hour}:{minute}" for hour in range(5, 24) for minute in (12, 26, 34, 47, 58)),
    "last_names": tuple(WORDS["last_names"]),
    "ages": tuple(str(age) for age in range(3, 17)),
    "colours": ("turquoise", "crimson", "violet", "orange", "yellow", "purple", "scarlet", "silver"),
    "goods": ("teapot", "cupboard", "toaster", "saucepan", "kettle", "stove", "refrigerator"),
}
INSTRUCTION = "Here is a text. Read it with care; a question about it is asked.\n\n"
ALL = " Name all {n} of them."


def _people(rng: random.Random, haystack: Haystack, n: int) -> list[str]:
    firsts, lasts = rng.sample(WORDS["first_names"], n), rng.sample(WORDS["last_names"], n)
    return [f"{first} {last}" for first, last in zip(firsts, lasts)]


def _number(rng: random.Random, haystack: Haystack) -> str:
    while True:
        value = str(rng.randint(10**3, 10 ** rng.choice((4, 5, 6))))
        if not haystack.holds(value):
            return value


def _numbers(rng: random.Random, haystack: Haystack, n: int) -> list[str]:
    values: list[str] = []
    while len(values) < n:
        value = _number(rng, haystack)
        if all(value not in other and other not in value for other in values):
            values.append(value)
    return values


def _text(rng: random.Random, haystack: Haystack, depth: int, n_words: int, facts: Sequence[str]) -> str:
    """Running text with the first fact at the depth and the others anywhere."""
    placed = [(depth if i == 0 else rng.randrange(101), fact) for i, fact in enumerate(facts)]
    return " ".join(insert_at_depths(haystack.sentences(haystack.begin(rng), n_words), placed))


def build_single(rng: random.Random, haystack: Haystack, depth: int, n_words: int, n_alike: int = 0) -> Planted:
    """One fact, and maybe others of its form."""
    told, asked = rng.choice(FORMS)
    people, values = _people(rng, haystack, 1 + n_alike), _numbers(rng, haystack, 1 + n_alike)
    facts = [told.format(who=who, value=value) for who, value in zip(people, values)]
    document = _text(rng, haystack, depth, n_words, facts)
    parts = Parts(INSTRUCTION, document, asked.format(who=people[0]), (values[0],))
    return Planted(parts, (Fact(facts[0], (values[0],)),))


def build_meaning(rng: random.Random, haystack: Haystack, depth: int, n_words: int) -> Planted:
    """One fact that is asked for in other words."""
    told, asked, key = rng.choice(MEANING_FORMS)
    value = rng.choice(MEANING_VALUES[key])
    fact = told.format(value=value)
    document = _text(rng, haystack, depth, n_words, [fact])
    return Planted(Parts(INSTRUCTION, document, asked, (value,)), (Fact(fact, (value,)),))


def build_several(rng: random.Random, haystack: Haystack, depth: int, n_words: int) -> Planted:
    """Facts about one person, which are asked for together, and one about another."""
    told, asked = FORMS[1]
    people, values = _people(rng, haystack, 2), _numbers(rng, haystack, N_SEVERAL + 1)
    owners = [people[0]] * N_SEVERAL + [people[1]]
    facts = [told.format(who=who, value=value) for who, value in zip(owners, values)]
    document = _text(rng, haystack, depth, n_words, facts)
    question = asked.format(who=people[0]).replace(
        "is the number of the report", "are the numbers of the reports"
    ) + ALL.format(n=N_SEVERAL)
    evidence = tuple(Fact(fact, (value,)) for fact, value in zip(facts[:N_SEVERAL], values))
    return Planted(Parts(INSTRUCTION, document, question, tuple(values[:N_SEVERAL])), evidence)


def build_chain(rng: random.Random, haystack: Haystack, depth: int, n_words: int) -> Planted:
    """Names that pass a number on, in the order of the text; every name of the chain is asked for."""
    names = [f"{rng.choice(WORDS['nouns'])}{rng.randrange(10, 100)}" for _ in range(2 * (N_HOPS + 1))]
    chains = names[: N_HOPS + 1], names[N_HOPS + 1 :]
    values = _numbers(rng, haystack, 2)
    lines = []
    for chain, value in zip(chains, values):
        first = f"set {chain[0]} to {value};"
        lines.append([first, *(f"set {b} to {a};" for a, b in zip(chain, chain[1:]))])
    depths = [sorted(rng.sample(range(101), N_HOPS + 1)) for _ in chains]
    placed = [(at, line) for ats, chain in zip(depths, lines) for at, line in zip(ats, chain)]
    document = " ".join(insert_at_depths(haystack.sentences(haystack.begin(rng), n_words), placed))
    question = f"Which names are set to the number {values[0]}, directly or through others?" + ALL.format(n=N_HOPS + 1)
    needed = [(chains[0][0],), *((b, a) for a, b in zip(chains[0], chains[0][1:]))]
    evidence = tuple(Fact(line, words) for line, words in zip(lines[0], needed))
    return Planted(Parts(INSTRUCTION, document, question, tuple(chains[0])), evidence)


def build_sections(rng: random.Random, haystack: Haystack, depth: int, n_words: int) -> Planted:
    """Sections with a fact in words each, some of one form."""
    people = _people(rng, haystack, N_SECTIONS)
    forms = [WORD_FORMS[i % len(WORD_FORMS)] for i in range(N_SECTIONS)]
    values = {key: rng.sample(haystack.absent(WORDS[key]), N_SECTIONS) for _, _, key in WORD_FORMS}
    at = min(N_SECTIONS - 1, depth * N_SECTIONS // 100)
    begin, sections = haystack.begin(rng), []
    for i, (who, (told, _, key)) in enumerate(zip(people, forms)):
        sentences = haystack.sentences(begin + n_words * i // N_SECTIONS, n_words // N_SECTIONS)
        sentences.insert(rng.randrange(len(sentences) + 1), told.format(who=who, value=values[key][i]))
        sections.append(f"Section {i + 1}. {' '.join(sentences)}")
    told, asked, key = forms[at]
    value = values[key][at]
    parts = Parts(INSTRUCTION, "\n\n".join(sections), asked.format(who=people[at]), (value,))
    return Planted(parts, (Fact(told.format(who=people[at], value=value), (value,)),))


def build_source(rng: random.Random, haystack: Haystack, depth: int, n_lines: int) -> Planted:
    """A settings file of source code, one of whose values is asked for."""

    def name() -> str:
        return f"{rng.choice(haystack.vocabulary)}_{rng.choice(WORDS['nouns'])}"

    names = list(dict.fromkeys(name() for _ in range(n_lines + 1)))
    lines = [f"{each.upper()} = {rng.randint(100, 99999)}" for each in names]
    at = min(len(names) - 1, depth * len(names) // 100)
    value = lines[at].rpartition(" ")[2]
    parts = Parts("This is settings.py:\n\n", "\n".join(lines), f"What is the value of {names[at].upper()}?", (value,))
    return Planted(parts, (Fact(lines[at], (value,)),))


Builder = Callable[[random.Random, Haystack, int, int], Planted]
KINDS: dict[str, Builder] = {
    "single": build_single,
    "alike": partial(build_single, n_alike=N_ALIKE),
    "meaning": build_meaning,
    "several": build_several,
    "chain": build_chain,
    "sections": build_sections,
    "source": build_source,
}


@dataclass(frozen=True)
class Probe:
    """A prompt with what is expected and where it stands.

    Attributes:
        name: kind, place of the question and index.
        question: what is asked, for the engine.
        evidence: for each fact that answers, the positions of the tokens that are needed of it.
    """

    name: str
    kind: str
    question: Question
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

        parts = fit(build, lambda p: len(self.prompter.ids(p.content(place), Wording())), N_ALIKE, length)
        return self._finished(f"{kind}/{place}/{index}", kind, found[parts], place)

    def _finished(self, name: str, kind: str, planted: Planted, place: str) -> Probe:
        content, references = planted.parts.content(place), planted.parts.references
        prompt = self.prompter.prompt(content, Wording(), MAX_ANSWER)
        question = Question(name, "", 0, prompt, references, partial(string_match_all, references=references))
        return Probe(name, kind, question, tuple(self._positions(prompt, fact) for fact in planted.evidence))

    def _positions(self, prompt: Prompt, fact: Fact) -> tuple[int, ...]:
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
