"""The texts that a caller gave, a plain prompt or the messages of a chat, and where each token lies in them.

Owns which texts can hold a source at all: not the system prompt, not the model's own answers, not the question.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from .offsets import Spans
from .templates import last_question
from .tokenizer import encode_text

_NOT_SOURCES = ("system", "developer", "assistant")
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")

Span = tuple[int, int]  # characters [begin, end)
Values = npt.NDArray[np.float64]  # (n_characters,)


@dataclass(frozen=True)
class GivenText:
    """A text that the caller gave.

    Attributes:
        text: as it was given.
        begin: characters of the whole prompt before it.
        cut: characters at its begin that the prompt does not hold; a template strips spaces.
        message: its number in the list of messages; None where the prompt was no chat.
        asks: the parts of it that ask, and so are no sources.
    """

    text: str
    begin: int = 0
    cut: int = 0
    message: Optional[int] = None
    asks: tuple[Span, ...] = ()

    def peaks(self, by_token: npt.NDArray[np.float32], spans: Spans) -> Values:
        """Numbers of tokens as numbers of the text's characters, (n_characters,): the highest of a character's tokens.

        Args:
            by_token: (n_tokens,), not below 0.
            spans: (n_tokens, 2), the characters of each token in the whole prompt.
        """
        out = np.zeros(len(self.text))
        for value, (begin, end) in zip(by_token.tolist(), self._inside(spans).tolist()):
            if begin < end:
                out[begin:end] = np.maximum(out[begin:end], value)
        return out

    def holds(self, spans: Spans) -> npt.NDArray[np.bool_]:
        """(n_tokens,), the tokens of the text but for those that ask."""
        begins, ends = self._inside(spans).T
        held = begins < ends
        for begin, end in self.asks:
            held &= (ends <= begin) | (begins >= end)
        return np.asarray(held)

    def _inside(self, spans: Spans) -> Spans:
        """Spans of the whole prompt in this text."""
        return np.clip(spans - self.begin + self.cut, self.cut, len(self.text))


def given_prompt(text: str) -> GivenText:
    """The prompt of a completion."""
    return GivenText(text, asks=tuple(_asking(text, is_last=True)))


def given_messages(turns: Sequence[Mapping[str, Any]], text: str) -> list[GivenText]:
    """The messages of a chat that can hold sources.

    Args:
        turns: as ``ChatPrompt`` has them; their content is text.
        text: the rendered prompt. A message that stands in it otherwise than it was given is left out.
    """
    last = max((i for i, turn in enumerate(turns) if turn["role"] == "user"), default=-1)
    given: list[GivenText] = []
    behind = 0
    for i, turn in enumerate(turns):
        content = turn["content"] or ""
        bare = content.strip()
        begin = text.find(bare, behind)
        if not bare or begin < 0:
            continue
        behind = begin + len(bare)
        if turn["role"] not in _NOT_SOURCES:
            cut = content.find(bare)
            given.append(GivenText(content, begin, cut, i, tuple(_asking(content, is_last=i == last))))
    return given


def character_spans(text: str, spans: Spans) -> Spans:
    """Spans of bytes of the text's UTF-8 as spans of its characters; a character belongs to every token with a byte."""
    data = np.frombuffer(encode_text(text), np.uint8)
    begun = np.cumsum((data & 0xC0) != 0x80)  # characters that have begun at each byte, with it
    before = np.concatenate([np.zeros(1, np.int64), begun])
    places = _places(text, int(before[-1]))
    begins, ends = spans[:, 0], spans[:, 1]
    covers = ends > begins
    first = np.where(covers, before[np.minimum(begins + 1, len(data))] - 1, before[begins])
    return np.stack([places[np.maximum(first, 0)], places[before[ends]]], axis=1)


def _places(text: str, n_encoded: int) -> npt.NDArray[np.int64]:
    """(n_encoded + 1,): where UTF-8's characters stand in a ``str``, in which a pair of surrogates is two."""
    if n_encoded == len(text):
        return np.arange(n_encoded + 1)
    seconds = {match.end() - 1 for match in re.finditer("[\ud800-\udbff][\udc00-\udfff]", text)}
    return np.array([i for i in range(len(text) + 1) if i not in seconds], np.int64)


def _asking(content: str, is_last: bool) -> Iterator[Span]:
    """The question, wherever it stands in the text. Of an earlier turn only what is surely one."""
    question = last_question(content)
    if question == content.strip():
        blank = [match.end() for match in _BLANK_LINE.finditer(content.rstrip())]
        question = content[blank[-1] :].strip() if blank else question
    if not is_last and not question.endswith("?"):
        return
    begin = content.find(question) if question else -1
    while begin >= 0:
        yield begin, begin + len(question)
        begin = content.find(question, begin + len(question))
