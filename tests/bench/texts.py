"""Prompts with a planted number."""

from __future__ import annotations

import random
from pathlib import Path

from lazygguf.tools.bench.text import TEXT

from lazygguf import LazyModel

NEEDLE = " The access code of the archive is {number}."
QUESTION = "What is the access code of the archive?"
UNRELATED = "Which language is this text written in? Answer with one word."


def needle_document(model: LazyModel, seed: int, n_tokens: int, text: Path = TEXT) -> tuple[str, str]:
    """About n_tokens of the text from a random place, a six-digit number planted in it, and that number."""
    rng = random.Random(seed)
    ids = model.tokenize(text.read_bytes(), add_bos=False)
    begin = rng.randrange(len(ids) - n_tokens)
    cut = begin + int(n_tokens * rng.random())
    number = str(rng.randrange(100_000, 1_000_000))
    parts = [model.detokenize(part).decode("utf-8", "ignore") for part in (ids[begin:cut], ids[cut : begin + n_tokens])]
    return parts[0] + NEEDLE.format(number=number) + parts[1], number
