"""What an answer leaned on, and how many such passages are told where nobody says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Optional

N_SOURCES = 3


@dataclass(frozen=True)
class Source:
    """A passage that an answer leaned on.

    Attributes:
        start, end: its characters [start, end) in the text that was given: the prompt, or the message's content.
        text: that part of it, at most 60 words: whole lines or sentences where they are not longer than that.
        score: the share of the attention to all text that could be a source which falls on the best place of this
            one, some 20 tokens, in [0, 1]. It never rises from one source to the next.
        first_line, last_line: its lines in the text, counted from 1.
        message: number of the message in the list that was given, from 0; None where the prompt was no chat.
    """

    start: int
    end: int
    text: str
    score: float
    first_line: int
    last_line: int
    message: Optional[int] = None

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return asdict(self)
