"""A prompt that was asked, with the texts that a caller gave for it: which passages of them are sources.

Owns the way from numbers by token to passages of those texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from ..read.prompt import Prompt
from ..read.scores import PromptAttention, pooled
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

    def sources(self, attended: PromptAttention, pieces: Sequence[bytes], n: int) -> list[Source]:
        """The passages that an answer leaned on, the best first.

        Args:
            attended: how much each token was attended to.
            pieces: the bytes of each token, control tokens as text.
            n: how many passages, at most.
        """
        text = b"".join(pieces).decode("utf-8", "replace") if self.text is None else self.text
        given = [given_prompt(text)] if self.turns is None else given_messages(self.turns, text)
        spans = character_spans(text, token_spans(encode_text(text), pieces))
        is_held = np.logical_or.reduce([np.zeros(len(pieces), np.bool_), *(part.holds(spans) for part in given)])
        scores = np.where(is_held, attended.scores, 0)  # what stands beside a question is not lifted by it
        around = attended.pool // 2
        places = pooled(scores, around, around).astype(np.float32)
        total = float(scores.sum())
        found = [
            _source(part, passage, min(1.0, passage.peak * attended.pool / total))
            for part in given
            for passage in best_passages(part.text, part.peaks(places, spans), n, part.asks)
        ]
        return sorted(found, key=lambda source: -source.score)[:n]


def _source(part: GivenText, passage: Passage, score: float) -> Source:
    start, end = passage.start, passage.end
    return Source(start, end, part.text[start:end], score, *lines_of(part.text, start, end), part.message)
