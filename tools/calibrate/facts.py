"""Facts that are planted in a text, and questions that a few of them answer: single ones, and chains of them.

Owns their wordings. They are not those of ``eval``, whose figures are to tell whether what is found here holds
elsewhere. A chain's lines each name the next, and all names are asked for; some stand after a worked example and
between sentences that come again and again. Both draw a model's attention away from what answers, which facts in
running text do not tell.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass

from ..eval.prompts import WORDS, Haystack, Parts, insert_at_depths

N_ALIKE = 8  # facts of the same form about others
N_SEVERAL = 3  # values that are asked for together
N_SECTIONS = 8
N_HOPS = 3  # of a chain, after its first name
N_HOPS_SHOWN = 2  # of a worked example
N_HOPS_AFTER = (4, 5)  # of the chain that is asked for after one
LETTERS = (4, 6)  # of a name that is no word


@dataclass(frozen=True)
class Fact:
    """A sentence that is planted, and the words in it that an answer needs."""

    sentence: str
    needed: tuple[str, ...]


@dataclass(frozen=True)
class Planted:
    """A question about a text with facts in it."""

    parts: Parts  # the text, the question and the expected strings
    evidence: tuple[Fact, ...]  # the facts that answer


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


def people_of(rng: random.Random, n: int) -> list[str]:
    """Different names of people."""
    firsts, lasts = rng.sample(WORDS["first_names"], n), rng.sample(WORDS["last_names"], n)
    return [f"{first} {last}" for first, last in zip(firsts, lasts)]


def numbers_of(rng: random.Random, haystack: Haystack, n: int) -> list[str]:
    """Numbers that the text does not hold, none of them a part of another."""
    values: list[str] = []
    while len(values) < n:
        value = str(rng.randint(10**3, 10 ** rng.choice((4, 5, 6))))
        if not haystack.holds(value) and all(value not in other and other not in value for other in values):
            values.append(value)
    return values


def text_of(rng: random.Random, haystack: Haystack, depth: int, n_words: int, facts: Sequence[str]) -> str:
    """Running text with the first fact at the depth and the others anywhere."""
    placed = [(depth if i == 0 else rng.randrange(101), fact) for i, fact in enumerate(facts)]
    return " ".join(insert_at_depths(haystack.sentences(haystack.begin(rng), n_words), placed))


def build_single(rng: random.Random, haystack: Haystack, depth: int, n_words: int, n_alike: int = 0) -> Planted:
    """One fact, and maybe others of its form."""
    told, asked = rng.choice(FORMS)
    people, values = people_of(rng, 1 + n_alike), numbers_of(rng, haystack, 1 + n_alike)
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
    people, values = people_of(rng, 2), numbers_of(rng, haystack, N_SEVERAL + 1)
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
    people = people_of(rng, N_SECTIONS)
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


@dataclass(frozen=True)
class ChainForm:
    """How a chain is told and asked for."""

    first: str  # names {b}, the begin, and maybe a {value}
    then: str  # names {b} by {a}, the one before it
    asked: str  # the question; may name the value


SET_FORM = ChainForm(
    "set {b} to {value};", "set {b} to {a};", "Which names are set to the number {value}, directly or through others?"
)
CODE_FORMS = (
    ChainForm("let {b} = {value};", "let {b} = {a};", "Which names hold the value {value}?"),
    ChainForm("put {value} into {b}", "copy {a} into {b}", "Into which places did {value} come?"),
    ChainForm("define {b} as {value}", "define {b} as {a}", "Which words are defined as {value}?"),
)
RELAY_FORMS = (
    ChainForm("{b} heard the secret first.", "{a} told the secret to {b}.", "Who has heard the secret?"),
    ChainForm("{b} made the violin.", "{a} sold the violin to {b}.", "Who has ever owned the violin?"),
    ChainForm("{b} found the bicycle.", "{a} lent the bicycle to {b}.", "Who has used the bicycle?"),
)
FILLERS = (
    "The rain falls on the roof. A dog sleeps by the door. Nobody is at home.",
    "It is late. The lamp is lit and the kettle is warm. All is quiet in the house.",
    "Carts come and go. The market is open until noon. Bread is sold there.",
)


def _place(rng: random.Random) -> str:
    return f"{rng.choice(WORDS['nouns'])}{rng.randrange(10, 100)}"


def _letters(rng: random.Random) -> str:
    return "".join(rng.sample(string.ascii_uppercase, rng.choice(LETTERS)))


def _identifier(rng: random.Random) -> str:
    return f"{rng.choice(WORDS['adjectives'])}_{rng.choice(WORDS['nouns'])}"


def _names(rng: random.Random, n: int) -> list[str]:
    """Names of one style; how many tokens one takes, and whether a model has seen it before, differs by style."""
    style = rng.choice((_place, _letters, _identifier))
    names: dict[str, None] = {}
    while len(names) < n:
        names[style(rng)] = None
    return list(names)


def _lines(form: ChainForm, names: Sequence[str], value: str) -> list[Fact]:
    first = Fact(form.first.format(b=names[0], value=value), (names[0],))
    return [first, *(Fact(form.then.format(a=a, b=b), (b, a)) for a, b in zip(names, names[1:]))]


def _placed(rng: random.Random, *chains: Sequence[Fact]) -> list[tuple[int, str]]:
    """Each chain's lines at random depths, in their order, for ``insert_at_depths``."""
    placed: list[tuple[int, str]] = []
    for chain in chains:
        placed += zip(sorted(rng.sample(range(101), len(chain))), (fact.sentence for fact in chain))
    return placed


def build_chain(rng: random.Random, haystack: Haystack, depth: int, n_words: int) -> Planted:
    """Names that pass a number on, in the order of the text; every name of the chain is asked for."""
    names = [_place(rng) for _ in range(2 * (N_HOPS + 1))]
    mine, others = names[: N_HOPS + 1], names[N_HOPS + 1 :]
    values = numbers_of(rng, haystack, 2)
    lines = _lines(SET_FORM, mine, values[0])
    placed = _placed(rng, lines, _lines(SET_FORM, others, values[1]))
    document = " ".join(insert_at_depths(haystack.sentences(haystack.begin(rng), n_words), placed))
    question = SET_FORM.asked.format(value=values[0]) + ALL.format(n=len(mine))
    return Planted(Parts(INSTRUCTION, document, question, tuple(mine)), tuple(lines))


def build_relay(rng: random.Random, haystack: Haystack, depth: int, n_words: int) -> Planted:
    """People who pass something on, in running text; beside it others who pass on something else."""
    form, other = rng.sample(RELAY_FORMS, 2)
    people = people_of(rng, 2 * (N_HOPS + 1))
    mine, others = people[: N_HOPS + 1], people[N_HOPS + 1 :]
    lines = _lines(form, mine, "")
    sentences = haystack.sentences(haystack.begin(rng), n_words)
    document = " ".join(insert_at_depths(sentences, _placed(rng, lines, _lines(other, others, ""))))
    question = form.asked + ALL.format(n=len(mine))
    return Planted(Parts(INSTRUCTION, document, question, tuple(mine)), tuple(lines))


def build_shown(rng: random.Random, haystack: Haystack, depth: int, n_sentences: int) -> Planted:
    """A chain between sentences that come again and again, after a worked example of the same form."""
    form, filler = rng.choice(CODE_FORMS), rng.choice(FILLERS)
    values = numbers_of(rng, haystack, 2)
    names = _names(rng, N_HOPS_SHOWN + 1 + rng.choice(N_HOPS_AFTER) + 1)
    example, asked = names[: N_HOPS_SHOWN + 1], names[N_HOPS_SHOWN + 1 :]
    shown = "\n".join(insert_at_depths([filler] * N_HOPS, _placed(rng, _lines(form, example, values[0]))))
    lines = _lines(form, asked, values[1])
    document = "\n".join(insert_at_depths([filler] * n_sentences, _placed(rng, lines)))
    said = f"Q: {form.asked.format(value=values[0])}{ALL.format(n=len(example))}\nA: {', '.join(example)}"
    parts = Parts(
        instruction=f"Follow what is passed on in these lines.\n\n{shown}\n\n{said}\n\n\nNow these lines.\n\n",
        document=document,
        question=f"Q: {form.asked.format(value=values[1])}{ALL.format(n=len(asked))}",
        references=tuple(asked),
    )
    return Planted(parts, tuple(lines))
