"""A prompt that was asked, with the texts that a caller gave for it: which passages of them are sources.

Owns the way from numbers by token to passages of those texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Optional

from ..read.prompt import Prompt
from ..read.scores import Scores
from ..read.sources import Source
from .given_text import GivenText, character_spans, given_messages, given_prompt
from .offsets import token_spans
from .passages import Passage, best_passages, lines_of
from .tokenizer import encode_text


@dataclass(frozen=True)
class Asked:
    """A prompt that was asked.

    Attributes:
        prompt: its tokens.
        text: as text; None where it was given as tokens.
        turns: the messages of a chat, their content as text; None where it was no chat.
    """

    prompt: Prompt
    text: Optional[str] = None
    turns: Optional[Sequence[Mapping[str, Any]]] = None

    def sources(self, attended: Scores, pieces: Sequence[bytes], n: int) -> list[Source]:
        """The passages that an answer leaned on, the best first.

        Args:
            attended: (n_tokens,) how much each token was attended to.
            pieces: the bytes of each token, control tokens as text.
            n: how many passages, at most.
        """
        text = b"".join(pieces).decode("utf-8", "replace") if self.text is None else self.text
        given = [given_prompt(text)] if self.turns is None else given_messages(self.turns, text)
        spans = character_spans(text, token_spans(encode_text(text), pieces))
        found: list[tuple[float, Source]] = []
        total = 0.0
        for part in given:
            shares = part.parts(attended, spans)
            total += float(shares.sum())
            for passage in best_passages(part.text, part.peaks(attended, spans), n, part.asks):
                share = float(shares[passage.start : passage.end].sum())
                found.append((passage.peak, _source(part, passage, share)))
        found.sort(key=lambda pair: -pair[0])
        return [replace(source, score=source.score / total if total else 0.0) for _, source in found[:n]]


def _source(part: GivenText, passage: Passage, score: float) -> Source:
    start, end = passage.start, passage.end
    return Source(start, end, part.text[start:end], score, *lines_of(part.text, start, end), part.message)
