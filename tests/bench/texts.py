"""What the benchmarks read: real text, cut to a number of tokens, and prompts with a planted number."""

from __future__ import annotations

import random
from pathlib import Path

from lazygguf import LazyModel

TEXT = Path(__file__).resolve().parent.parent.parent / "tools" / "data" / "jargon.txt"
NEEDLE = " The access code of the archive is {number}."
QUESTION = "What is the access code of the archive?"
UNRELATED = "Which language is this text written in? Answer with one word."


def real_tokens(model: LazyModel, n: int, text: Path = TEXT) -> list[int]:
    """The first n tokens of the text."""
    ids = model.tokenize(text.read_bytes())
    if len(ids) < n:
        raise SystemExit(f"{text} has {len(ids)} tokens, {n} are needed")
    return ids[:n]


def needle_document(model: LazyModel, seed: int, n_tokens: int, text: Path = TEXT) -> tuple[str, str]:
    """About n_tokens of the text from a random place, a six-digit number planted in it, and that number."""
    rng = random.Random(seed)
    ids = model.tokenize(text.read_bytes(), add_bos=False)
    begin = rng.randrange(len(ids) - n_tokens)
    cut = begin + int(n_tokens * rng.random())
    number = str(rng.randrange(100_000, 1_000_000))
    parts = [model.detokenize(part).decode("utf-8", "ignore") for part in (ids[begin:cut], ids[cut : begin + n_tokens])]
    return parts[0] + NEEDLE.format(number=number) + parts[1], number
