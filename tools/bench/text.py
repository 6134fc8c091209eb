"""What the engines read: real text, or random tokens for a model of random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Protocol

import numpy as np

from lazygguf.text_file import read_text
from lazygguf.tokenizer import encode_text

TEXT = Path(__file__).resolve().parent.parent / "data" / "jargon.txt"  # public domain, about 13,000 tokens


class Tokenizes(Protocol):
    """A tokenizer, or a model that has one."""

    def tokenize(self, text: bytes, add_bos: bool = True) -> list[int]: ...


def text_ids(tokenizer: Tokenizes, n_tokens: int, path: Optional[str] = None) -> list[int]:
    """The first tokens of a text file, of the text that comes with lazygguf where none is named.

    A text is never repeated: a second copy would be easier to read than text, and attention would say so.

    Raises:
        ValueError: the text is shorter.
        OSError: it cannot be read.
    """
    ids = tokenizer.tokenize(encode_text(read_text(str(TEXT) if path is None else path)))
    if len(ids) < n_tokens:
        what = f"the text of lazygguf has {len(ids):,}" if path is None else f"{path} has {len(ids):,}"
        raise ValueError(
            f"{what} tokens in this model, {n_tokens:,} are needed: give a longer text with -f, or less -p"
        )
    return ids[:n_tokens]


def random_ids(n_vocab: int, n_tokens: int) -> list[int]:
    """The same pseudo-random tokens each time."""
    return [int(token) for token in np.random.default_rng(0).integers(0, n_vocab, n_tokens)]
