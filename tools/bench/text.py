"""What the engines read: real text with a question behind it, or random tokens for a model of random weights.

The question is there because schedules ask by it: plain text, which asks nothing, is read densely by profiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional, Protocol

import numpy as np

from lazygguf.cli.text_file import read_text
from lazygguf.text.tokenizer import encode_text

TEXT = Path(__file__).resolve().parent.parent / "data" / "jargon.txt"  # public domain, about 13,000 tokens


QUESTION = "What does the text above say about its author?"
N_RANDOM_QUESTION = 12  # tokens
_LEAST_TEXT = 3  # times the question's tokens: a prompt that is shorter has no question


class Script(NamedTuple):
    """What one run reads."""

    ids: list[int]  # the prompt's tokens and those after it
    n_prompt: int  # tokens of the prompt
    n_asked: int = 0  # of those, the newest, which are a question about the others; 0 where nothing is asked


def script(text: Sequence[int], question: Sequence[int], n_prompt: int, n_gen: int) -> Script:
    """A prompt that is the begin of a text and a question, then the text as it goes on."""
    n_asked = len(question) if n_prompt > _LEAST_TEXT * len(question) else 0
    n_text = n_prompt - n_asked
    return Script([*text[:n_text], *question[:n_asked], *text[n_text : n_text + n_gen]], n_prompt, n_asked)


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


def question_ids(tokenizer: Tokenizes, question: str) -> list[int]:
    """The question as a paragraph of its own; none for an empty one."""
    return tokenizer.tokenize(encode_text(f"\n\n{question}"), add_bos=False) if question else []


def random_ids(n_vocab: int, n_tokens: int) -> list[int]:
    """The same pseudo-random tokens each time."""
    return [int(token) for token in np.random.default_rng(0).integers(0, n_vocab, n_tokens)]
