"""The text that hides things, and the words that name them.

Owns reading the haystack, cutting it into sentences, placing a sentence at a depth, and the deterministic spread of
depths. It knows nothing of tokens and models.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Optional

from lazygguf.cli.text_file import read_text

WORDS: dict[str, list[str]] = json.loads((Path(__file__).resolve().parent / "words.json").read_text(encoding="utf-8"))
SHIPPED_TEXT = Path(__file__).resolve().parent.parent / "data" / "jargon.txt"
MIN_WORDS = 200
N_DEPTHS = 40  # RULER's: 0 to 100% in 40 steps
DEPTHS = tuple(round(100 * i / (N_DEPTHS - 1)) for i in range(N_DEPTHS))

_DEPTH_STRIDE = 17  # coprime to 40: 40 samples meet every depth once, and a few samples are spread out
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def depth_of(seed: int, index: int) -> int:
    """The depth, in percent, of a sample's answer: the same whatever else is asked for."""
    return DEPTHS[(seed + index * _DEPTH_STRIDE) % N_DEPTHS]


def insert_at_depths(sentences: list[str], placed: Iterable[tuple[int, str]]) -> list[str]:
    """The sentences with others put in.

    Args:
        sentences: the haystack's.
        placed: (depth in percent, sentence); a depth of d stands before sentence ``int(len(sentences) * d / 100)``, as
            RULER counts.
    """
    before: dict[int, list[str]] = {}
    for depth, sentence in sorted(placed, key=lambda pair: pair[0]):
        before.setdefault(len(sentences) * depth // 100, []).append(sentence)
    out: list[str] = []
    for i in range(len(sentences) + 1):
        out += before.get(i, [])
        out += sentences[i : i + 1]
    return out


class Haystack:
    """Running text without line breaks, read in a circle.

    Attributes:
        text: the text as it is in the file.
        vocabulary: its plain lower-case words of 3 to 12 letters, sorted.
    """

    def __init__(self, text: str, name: str = "the text") -> None:
        """Raises ValueError when the text has too few words."""
        self.text = text
        self.name = name
        self._words = text.split()
        if len(self._words) < MIN_WORDS:
            raise ValueError(f"{name} has {len(self._words)} words, expected at least {MIN_WORDS} (-f FILE)")
        begins = [i + 1 for i, word in enumerate(self._words[:-1]) if word[-1] in ".!?"]
        self._begins = [0, *begins]
        self._lower = " ".join(self._words).lower()
        plain = {word for word in self._lower.split() if re.fullmatch(r"[a-z]{3,12}", word)}
        self.vocabulary = sorted(plain)

    @classmethod
    def read(cls, path: Optional[str]) -> Haystack:
        """A file, or the text that ships with the package for None."""
        return cls(read_text(path or str(SHIPPED_TEXT)), path or SHIPPED_TEXT.name)

    def begin(self, rng: random.Random) -> int:
        """A word at which a sentence begins."""
        return rng.choice(self._begins)

    def sentences(self, begin: int, n_words: int) -> list[str]:
        """Sentences of ``n_words`` words from a word on; the last one may be cut short."""
        words = [self._words[(begin + i) % len(self._words)] for i in range(n_words)]
        return _SENTENCE_END.split(" ".join(words)) if words else []

    def holds(self, value: str) -> bool:
        """Whether the text contains a value, upper or lower case."""
        return value.lower() in self._lower

    def absent(self, values: Iterable[str]) -> list[str]:
        """The values that the text does not contain: an answer must come from what was planted."""
        return [value for value in values if not self.holds(value)]


def magic_key(rng: random.Random) -> str:
    """A key such as "quiet-lantern"."""
    return f"{rng.choice(WORDS['adjectives'])}-{rng.choice(WORDS['nouns'])}"


def magic_number(rng: random.Random) -> str:
    """A number of seven digits, RULER's."""
    return str(rng.randint(1_000_000, 9_999_999))
