"""The tasks of RULER (arXiv:2404.06654) that need the whole text: variable tracking and word counts.

Owns ``vt``, ``cwe`` and ``fwe`` as RULER defines them, with its one worked example before ``vt`` and ``cwe``, and other
words for ``vt``.
"""

from __future__ import annotations

import math
import random
import string
from collections.abc import Sequence
from dataclasses import dataclass

from .prompts import Ask, Haystack, Parts

N_HOPS = 4
N_COMMON = 10
LONG = 4096  # tokens; below, RULER repeats words less often
CODED_LETTERS = 6

CWE_INSTRUCTION = (
    "Below is a numbered list of words. In these words, some appear more often than others. "
    "Memorize the ones that appear most often.\n"
)
CWE_QUESTION = "Question: What are the 10 most common words in the above list?"
CWE_PREFIX = "Answer: The top 10 words that appear most often in the list are:"
FWE_INSTRUCTION = (
    "Read the following coded text and track the frequency of each coded word. "
    "Find the three most frequently appeared coded words. "
)
FWE_QUESTION = (
    "Question: Do not provide any explanation. Please ignore the dots '....'. "
    "What are the three most frequently appeared words in the above coded text?"
)
FWE_PREFIX = "Answer: According to the coded text above, the three most frequently appeared words are:"


@dataclass(frozen=True)
class ChainWording:
    """How a chain of names that hold one value is told and asked for."""

    first: str  # names {b} and its {value}
    then: str  # names {b} by {a}, the one before it
    noise: str  # stands between them, again and again
    instruction: str  # stands before the text
    question: str  # names {query}, the value
    answer_prefix: str  # names {n}, how many names hold it, and {query}


CHAINS = ChainWording(
    first="VAR {b} = {value}",
    then="VAR {b} = VAR {a} ",
    noise="The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.",
    instruction="Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n",
    question="Question: Find all variables that are assigned the value {query} in the text above.",
    answer_prefix=(
        "Answer: According to the chain(s) of variable assignment in the text above, {n} variables are assigned the "
        "value {query}, they are: "
    ),
)
CHAINS_REWORDED = ChainWording(
    first="Box {b} holds {value}.",
    then="Box {b} holds the same as box {a}.",
    noise="A bell rings. Snow lies on the hill. Somebody waves. The train is late.",
    instruction="Keep in mind what each box holds in the lines that follow.\n\n",
    question="Task: List all boxes that hold {query}, by the lines.",
    answer_prefix="Reply: By the lines, {n} boxes hold {query}: ",
)


def build_vt(ask: Ask, haystack: Haystack, n_noises: int, wording: ChainWording) -> Parts:
    """A chain of five variables between sentences of noise, after one worked example."""
    rng = ask.rng()
    example = _chain(rng, N_HOPS + 1, 3, wording)
    asked = _chain(rng, n_noises, 5, wording)
    shown = f"{example.instruction}{example.document}\n\n{example.question} {example.answer_prefix}"
    return Parts(
        instruction=f"{shown}{' '.join(example.references)}\n\n\n{asked.instruction}",
        document=asked.document,
        question=asked.question,
        references=asked.references,
        answer_prefix=asked.answer_prefix,
    )


def _chain(rng: random.Random, n_noises: int, n_letters: int, wording: ChainWording) -> Parts:
    names: list[str] = []
    while len(names) < N_HOPS + 1:
        name = "".join(rng.choices(string.ascii_uppercase, k=n_letters))
        if name not in names and name != "VAR":
            names.append(name)
    value = str(rng.randint(10_000, 99_999))
    chain = [wording.first.format(b=names[0], value=value)]
    chain += [wording.then.format(a=a, b=b) for a, b in zip(names, names[1:])]
    lines = [wording.noise] * n_noises
    for shift, (place, line) in enumerate(zip(sorted(rng.sample(range(n_noises), len(chain))), chain)):
        lines.insert(place + shift, line)
    return Parts(
        instruction=wording.instruction,
        document="\n".join(lines).replace(". \n", ".\n"),
        question=wording.question.format(query=value),
        references=tuple(names),
        answer_prefix=wording.answer_prefix.format(n=len(names), query=value),
    )


def build_cwe(ask: Ask, haystack: Haystack, n_words: int) -> Parts:
    """A numbered list in which ten words come more often, after one worked example.

    Raises:
        ValueError: the haystack has fewer different words than the list needs.
    """
    rng, is_long = ask.rng(), ask.length >= LONG
    shown = 40 if is_long else 20
    needed = shown + n_words
    if needed > len(haystack.vocabulary):
        raise ValueError(
            f"{haystack.name} has {len(haystack.vocabulary)} different words, a list of this length needs {needed} "
            "(-f with a longer text)"
        )
    words = rng.sample(haystack.vocabulary, needed)
    example, common = _word_list(rng, words[:shown], (10, 3) if is_long else (3, 1))
    said = " ".join(f"{i}. {word}" for i, word in enumerate(common, start=1))
    document, asked = _word_list(rng, words[shown:], (30, 3) if is_long else (6, 1))
    return Parts(
        instruction=f"{CWE_INSTRUCTION}{example}\n\n{CWE_QUESTION} {CWE_PREFIX} {said}\n{CWE_INSTRUCTION}",
        document=document,
        question=CWE_QUESTION,
        references=tuple(asked),
        answer_prefix=CWE_PREFIX,
    )


def _word_list(rng: random.Random, words: Sequence[str], repeats: tuple[int, int]) -> tuple[str, list[str]]:
    """The numbered list, and its ten common words."""
    common, rare = list(words[:N_COMMON]), list(words[N_COMMON:])
    listed = common * repeats[0] + rare * repeats[1]
    rng.shuffle(listed)
    return " ".join(f"{i}. {word}" for i, word in enumerate(listed, start=1)), common


def build_fwe(ask: Ask, haystack: Haystack, n_words: int) -> Parts:
    """Coded words whose counts follow a zeta distribution of exponent 2; the most frequent "word" is dots."""
    rng, vocab_size = ask.rng(), max(8, ask.length // 50)
    words: dict[str, None] = {}  # different ones, in order
    while len(words) < vocab_size:
        words["".join(rng.choices(string.ascii_lowercase, k=CODED_LETTERS))] = None
    vocab = ["...", *list(words)[1:]]
    zeta = math.pi**2 / 6
    counts = [int(n_words / (rank**2 * zeta)) for rank in range(1, vocab_size + 1)]
    text = [word for word, count in zip(vocab, counts) for _ in range(count)]
    rng.shuffle(text)
    return Parts(
        instruction=FWE_INSTRUCTION,
        document=" ".join(text),
        question=FWE_QUESTION,
        references=tuple(vocab[1:4]),
        answer_prefix=FWE_PREFIX,
    )
