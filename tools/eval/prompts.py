"""What a model is asked: a text, a question about it, and the token ids that they become.

Owns the haystack (the text that hides things), the parts of a question and the search for how much text fits a length,
the chat template or plain text around them, and where the question stands. It knows nothing of single tasks.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional, Protocol

from lazygguf.cli.text_file import read_text
from lazygguf.read.prompt import Prompt
from lazygguf.text.templates import TEMPLATE_KEY, ChatTemplate, last_question, question_span
from lazygguf.text.tokenizer import Tokenizer, encode_text

WORDS: dict[str, list[str]] = json.loads((Path(__file__).resolve().parent / "words.json").read_text(encoding="utf-8"))
SHIPPED_TEXT = Path(__file__).resolve().parent.parent / "data" / "jargon.txt"
MIN_WORDS = 200
N_DEPTHS = 40  # RULER's: 0 to 100% in 40 steps
DEPTHS = tuple(round(100 * i / (N_DEPTHS - 1)) for i in range(N_DEPTHS))
N_FIRST_STEP = 16  # units of text; after them it is known about how many tokens each adds
KLD = "kld"  # the task that compares continuations; it has no answer

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


@dataclass(frozen=True)
class Ask:
    """What decides the content of a generated prompt: the same values give the same prompt."""

    seed: int
    task: str
    length: int
    index: int

    def rng(self) -> random.Random:
        """Numbers that no other task, length or index shares."""
        return random.Random(f"{self.seed}/{self.task}/{self.length}/{self.index}")

    @property
    def depth(self) -> int:
        return depth_of(self.seed, self.index)


@dataclass(frozen=True)
class Parts:
    """One question about a document."""

    instruction: str  # what stands before the document
    document: str  # the text that holds the answer
    question: str  # what is asked
    references: tuple[str, ...]  # the expected strings
    answer_prefix: str = ""  # how the answer begins, where the model is to go on from it
    # where the asked facts were placed, in percent; empty where a task has no such place
    depths: tuple[int, ...] = field(default=())
    # the sentences of the document that answer; empty where a task has no such sentences
    evidence: tuple[str, ...] = ()

    def content(self, place: str = "after") -> str:
        """The user turn; a blank line parts document and question, so that the question is found.

        Args:
            place: where the question stands: ``"after"`` the document, ``"before"`` it, or ``"both"``.
        """
        first = f"{self.question}\n\n" if place in ("both", "before") else ""
        last = f"\n\n{self.question}" if place in ("both", "after") else ""
        return f"{first}{self.instruction}{self.document}{last}"


def fit(build: Callable[[int], Parts], count: Callable[[Parts], int], least: int, limit: int) -> Parts:
    """The longest parts of at most ``limit`` tokens.

    Args:
        build: makes the parts from a number of units of text (words, sentences, ...).
        count: tokens of the whole prompt.
        least: fewest units.
        limit: most tokens.

    Raises:
        ValueError: even the fewest units are too long; the message holds both numbers.
    """
    best = build(least)
    first = low = least, count(best)
    if low[1] > limit:
        raise ValueError(f"{limit} tokens are too few, expected at least {low[1]}")
    high: Optional[tuple[int, int]] = None  # (units, tokens) that are too many
    n_tried = 0
    while high is None or high[0] - low[0] > 1:
        n_units = _beyond(first, low, limit) if high is None else _between(low, high, limit, n_tried % 3 == 2)
        n_tried += 1
        parts = build(n_units)
        n_tokens = count(parts)
        if n_tokens <= limit:
            best, low = parts, (n_units, n_tokens)
        else:
            high = n_units, n_tokens
    return best


def _beyond(first: tuple[int, int], low: tuple[int, int], limit: int) -> int:
    """Units that should be just too many, by the tokens that each has added so far."""
    if low == first:
        return low[0] + N_FIRST_STEP
    per_unit = max(1e-3, (low[1] - first[1]) / (low[0] - first[0]))
    return low[0] + 1 + min(int(1.02 * (limit - low[1]) / per_unit), 8 * low[0])


def _between(low: tuple[int, int], high: tuple[int, int], limit: int, halve: bool) -> int:
    """Units where a straight line meets the limit; the middle now and then, where the line misleads."""
    share = 0.5 if halve else (limit - low[1]) / (high[1] - low[1])
    return min(high[0] - 1, max(low[0] + 1, low[0] + int(share * (high[0] - low[0]))))


@dataclass(frozen=True)
class TaskPrompt(Prompt):
    """What a model is asked, and where its answer ends."""

    max_tokens: int = 0  # most tokens of the answer
    stops: tuple[str, ...] = ()  # texts that end the answer
    min_tokens: int = 0  # tokens before which nothing ends the answer
    content: str = ""  # the user turn that it was made of

    @property
    def digest(self) -> str:
        """A hash of all that decides the answer."""
        content = repr((self.ids, self.query_span, self.max_tokens, self.stops, self.min_tokens, self.protect))
        return hashlib.sha256(content.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Wording:
    """How a prompt is put: inside the chat template or not, how the answer begins, and what asks in it."""

    chat: bool = True  # use the model's chat template, where it has one
    answer_prefix: str = ""  # text after which the answer is to go on; "" is none
    # the question's text, where the template's own search (the text after the last blank line) would not find it; None
    # leaves it to that
    question: Optional[str] = None


class Prompter:
    """Makes prompts for one model."""

    def __init__(self, tokenizer: Tokenizer, metadata: Mapping[str, Any]) -> None:
        self.tokenizer = tokenizer
        self.has_template = TEMPLATE_KEY in metadata
        self._template = ChatTemplate(tokenizer, metadata)

    def prompt(self, content: str, wording: Wording, max_tokens: int, **ends: Any) -> TaskPrompt:
        """The prompt of a user turn; ``ends`` are ``stops`` and ``min_tokens`` of ``TaskPrompt``."""
        protect: tuple[int, ...] = ()
        if wording.chat and self.has_template:
            rendered = self._template.render([{"role": "user", "content": content}]).prompt
            ids, span, protect = list(rendered.ids), rendered.query_span, tuple(rendered.protect)
            if wording.question is not None:
                span = self._span(ids, wording.question)
        else:
            ids = self.tokenizer.tokenize(encode_text(content), add_bos=True)
            span = self._span(ids, last_question(content) if wording.question is None else wording.question)
        if wording.answer_prefix:
            ids += self.tokenizer.tokenize(encode_text(wording.answer_prefix), add_bos=False, special=True)
        return TaskPrompt(tuple(ids), span, protect, max_tokens=max_tokens, content=content, **ends)

    def _span(self, ids: list[int], question: str) -> Optional[tuple[int, int]]:
        pieces = [self.tokenizer.piece(token, special=True) for token in ids]
        return question_span(pieces, question.strip())


@dataclass(frozen=True)
class Question:
    """A prompt with what is expected."""

    task: str
    length: str  # what the prompt's length is called in the table
    index: int  # number within the task
    prompt: TaskPrompt  # what is asked
    references: Sequence[str]  # the expected answers
    score: Callable[[str], float]  # of an answer, in [0, 1]
    continuation: Optional[tuple[int, ...]] = None  # of kld, the tokens that follow the prompt; else None
    depths: Sequence[int] = ()  # where the asked facts stand, in percent
    evidence: Sequence[str] = ()  # the sentences that answer
    extra: dict[str, Any] = field(default_factory=dict)  # noted with the answer


class Source(Protocol):
    """A task at one length."""

    @property
    def task(self) -> str: ...
    @property
    def n_questions(self) -> int: ...
    def question(self, index: int) -> Question: ...
