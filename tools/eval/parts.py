"""What a generated task asks, in parts, and how the parts become one user turn of a wanted length.

Owns the order of document and question and the search for how much text fits. It knows nothing of single tasks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Optional

N_FIRST_STEP = 16  # units; after them it is known about how many tokens each adds


@dataclass(frozen=True)
class Parts:
    """One question about a document.

    Attributes:
        instruction: what stands before the document.
        document: the text that holds the answer.
        question: what is asked.
        references: the expected strings.
        answer_prefix: how the answer begins, where the model is to go on from it.
        depths: where the asked facts were placed, in percent; empty where a task has no such place.
    """

    instruction: str
    document: str
    question: str
    references: tuple[str, ...]
    answer_prefix: str = ""
    depths: tuple[int, ...] = field(default=())

    def content(self, place: str = "after") -> str:
        """The user turn; a blank line parts document and question, so that the question is found.

        Args:
            place: where the question stands: ``"after"`` the document, ``"before"`` it, or ``"both"``.
        """
        first = f"{self.question}\n\n" if place in ("both", "before") else ""
        last = f"\n\n{self.question}" if place in ("both", "after") else ""
        return f"{first}{self.instruction}{self.document}{last}"


Build = Callable[[int], Parts]


def fit(build: Build, count: Callable[[Parts], int], least: int, limit: int) -> Parts:
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
