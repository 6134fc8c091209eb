"""Chains that are planted in a text: lines each of which names the next, all of which are asked for.

Owns their wordings, and the worked example and the repeated sentences that some stand in: both draw a model's attention
away from what answers, which facts in running text do not tell. They are not the chains of ``eval``.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass

from ..eval.haystack import WORDS, Haystack, insert_at_depths
from ..eval.parts import Parts
from .facts import ALL, INSTRUCTION, Fact, Planted, numbers_of, people_of

N_HOPS = 3  # of a chain, after its first name
N_HOPS_SHOWN = 2  # of a worked example
N_HOPS_AFTER = (4, 5)  # of the chain that is asked for after one
LETTERS = (4, 6)  # of a name that is no word


@dataclass(frozen=True)
class ChainForm:
    """How a chain is told and asked for.

    Attributes:
        first: names ``b``, the begin, and maybe a ``value``.
        then: names ``b`` by ``a``, the one before it.
        asked: the question; may name the value.
    """

    first: str
    then: str
    asked: str


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
    people = people_of(rng, haystack, 2 * (N_HOPS + 1))
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
