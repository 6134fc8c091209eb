"""Facts that are planted in a text, and questions that a few of them answer.

Owns their wordings. They are not those of ``eval``, whose figures are to tell whether what is found here holds
elsewhere.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from ..eval.haystack import WORDS, Haystack, insert_at_depths
from ..eval.parts import Parts

N_ALIKE = 8  # facts of the same form about others
N_SEVERAL = 3  # values that are asked for together
N_SECTIONS = 8


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
VALUES_FORMS = (
    ("{value} was once offered for the {what}.", "Which prices were offered for the {what}?"),
    ("The {what} was seen in room {value}.", "In which rooms was the {what} seen?"),
    ("On the {what} somebody had scratched {value}.", "Which numbers were scratched on the {what}?"),
)
INSTRUCTION = "Here is a text. Read it with care; a question about it is asked.\n\n"
ALL = " Name all {n} of them."


def people_of(rng: random.Random, haystack: Haystack, n: int) -> list[str]:
    firsts, lasts = rng.sample(WORDS["first_names"], n), rng.sample(WORDS["last_names"], n)
    return [f"{first} {last}" for first, last in zip(firsts, lasts)]


def number_of(rng: random.Random, haystack: Haystack) -> str:
    while True:
        value = str(rng.randint(10**3, 10 ** rng.choice((4, 5, 6))))
        if not haystack.holds(value):
            return value


def numbers_of(rng: random.Random, haystack: Haystack, n: int) -> list[str]:
    values: list[str] = []
    while len(values) < n:
        value = number_of(rng, haystack)
        if all(value not in other and other not in value for other in values):
            values.append(value)
    return values


def text_of(rng: random.Random, haystack: Haystack, depth: int, n_words: int, facts: Sequence[str]) -> str:
    """Running text with the first fact at the depth and the others anywhere."""
    placed = [(depth if i == 0 else rng.randrange(101), fact) for i, fact in enumerate(facts)]
    return " ".join(insert_at_depths(haystack.sentences(haystack.begin(rng), n_words), placed))


def build_single(rng: random.Random, haystack: Haystack, depth: int, n_words: int, n_alike: int = 0) -> Planted:
    """One fact, and maybe others of its form."""
    told, asked = rng.choice(FORMS)
    people, values = people_of(rng, haystack, 1 + n_alike), numbers_of(rng, haystack, 1 + n_alike)
    facts = [told.format(who=who, value=value) for who, value in zip(people, values)]
    document = text_of(rng, haystack, depth, n_words, facts)
    parts = Parts(INSTRUCTION, document, asked.format(who=people[0]), (values[0],))
    return Planted(parts, (Fact(facts[0], (values[0],)),))


def build_meaning(rng: random.Random, haystack: Haystack, depth: int, n_words: int) -> Planted:
    """One fact that is asked for in other words."""
    told, asked, key = rng.choice(MEANING_FORMS)
    value = rng.choice(MEANING_VALUES[key])
    fact = told.format(value=value)
    document = text_of(rng, haystack, depth, n_words, [fact])
    return Planted(Parts(INSTRUCTION, document, asked, (value,)), (Fact(fact, (value,)),))


def build_several(rng: random.Random, haystack: Haystack, depth: int, n_words: int) -> Planted:
    """Facts about one person, which are asked for together, and one about another."""
    told, asked = FORMS[1]
    people, values = people_of(rng, haystack, 2), numbers_of(rng, haystack, N_SEVERAL + 1)
    owners = [people[0]] * N_SEVERAL + [people[1]]
    facts = [told.format(who=who, value=value) for who, value in zip(owners, values)]
    document = text_of(rng, haystack, depth, n_words, facts)
    question = asked.format(who=people[0]).replace(
        "is the number of the report", "are the numbers of the reports"
    ) + ALL.format(n=N_SEVERAL)
    evidence = tuple(Fact(fact, (value,)) for fact, value in zip(facts[:N_SEVERAL], values))
    return Planted(Parts(INSTRUCTION, document, question, tuple(values[:N_SEVERAL])), evidence)


def build_values(rng: random.Random, haystack: Haystack, depth: int, n_words: int) -> Planted:
    """Numbers of one thing told at several places, and of others in the same words."""
    told, asked = rng.choice(VALUES_FORMS)
    n = rng.choice((2, 3, 4))
    names, values = rng.sample(WORDS["nouns"], 3), numbers_of(rng, haystack, n + 2)
    facts = [Fact(told.format(what=names[0], value=value), (value,)) for value in values[:n]]
    others = [told.format(what=name, value=value) for name, value in zip(names[1:], values[n:])]
    document = text_of(rng, haystack, depth, n_words, [*(fact.sentence for fact in facts), *others])
    question = asked.format(what=names[0]) + ALL.format(n=n)
    return Planted(Parts(INSTRUCTION, document, question, tuple(values[:n])), tuple(facts))


def build_sections(rng: random.Random, haystack: Haystack, depth: int, n_words: int) -> Planted:
    """Sections with a fact in words each, some of one form."""
    people = people_of(rng, haystack, N_SECTIONS)
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
