"""Prompts with a planted number."""

from __future__ import annotations

import random
from pathlib import Path

from lazygguf.tools.bench.text import TEXT

from lazygguf import LazyModel

NEEDLE = " The access code of the archive is {number}."
QUESTION = "What is the access code of the archive?"
UNRELATED = "Which language is this text written in? Answer with one word."


FACTS = (
    (" The access code of the archive is {}.", "What is the access code of the archive?"),
    (" The boat of the keeper has the registration {}.", "What is the registration of the boat of the keeper?"),
    (" Parcels for the observatory go to the postal box {}.", "To which postal box do parcels for the observatory go?"),
)


def three_facts(model: LazyModel, seed: int, n_tokens: int, text: Path = TEXT) -> tuple[str, list[tuple[str, str]]]:
    """About n_tokens of the text with three facts far from each other, and (question, answer) of each, in any order."""
    rng = random.Random(seed)
    ids = model.tokenize(text.read_bytes(), add_bos=False)
    begin = rng.randrange(len(ids) - n_tokens)
    cuts = [begin, *(begin + int(n_tokens * (i + rng.random()) / 3) for i in range(3)), begin + n_tokens]
    parts = [model.detokenize(ids[a:b]).decode("utf-8", "ignore") for a, b in zip(cuts, cuts[1:])]
    facts = [(told, question, str(rng.randrange(100_000, 1_000_000))) for told, question in rng.sample(FACTS, 3)]
    document = parts[0] + "".join(told.format(number) + part for (told, _, number), part in zip(facts, parts[1:]))
    return document, rng.sample([(question, number) for _, question, number in facts], 3)


def needle_document(model: LazyModel, seed: int, n_tokens: int, text: Path = TEXT) -> tuple[str, str]:
    """About n_tokens of the text from a random place, a six-digit number planted in it, and that number."""
    rng = random.Random(seed)
    ids = model.tokenize(text.read_bytes(), add_bos=False)
    begin = rng.randrange(len(ids) - n_tokens)
    cut = begin + int(n_tokens * rng.random())
    number = str(rng.randrange(100_000, 1_000_000))
    parts = [model.detokenize(part).decode("utf-8", "ignore") for part in (ids[begin:cut], ids[cut : begin + n_tokens])]
    return parts[0] + NEEDLE.format(number=number) + parts[1], number
