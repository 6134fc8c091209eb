"""A prompt as text that another model's tokenizer can read: its bytes, the span of each token, the control tokens.

Owns what becomes of control tokens, which mean nothing in another vocabulary, and the lines that a user marks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable, Optional, Protocol

import numpy as np
import numpy.typing as npt

from .offsets import Spans, clean_text, spans_of, tokens_over

Mask = npt.NDArray[np.bool_]


class Pieces(Protocol):
    """What is asked of a vocabulary (``Tokenizer``)."""

    def piece(self, token: int, special: bool = False) -> bytes: ...


@dataclass(frozen=True)
class PromptText:
    """A prompt as text.

    Attributes:
        data: UTF-8.
        spans: (n_tokens, 2), the bytes of each token; none for a control token that is left out.
        is_control: (n_tokens,), tokens that are no text.
    """

    data: bytes
    spans: Spans
    is_control: Mask

    @property
    def markup(self) -> list[tuple[int, int]]:
        """Bytes [begin, end) of the control tokens that are in the text."""
        return [(int(begin), int(end)) for begin, end in self.spans[self.is_control] if begin < end]

    def lines_matching(self, pattern: re.Pattern[bytes]) -> Mask:
        """(n_tokens,), the tokens of every line that begins with a match."""
        marked = np.zeros(len(self.spans), np.bool_)
        begin = 0
        for line in self.data.splitlines(keepends=True):
            if pattern.match(line):
                first, last = tokens_over(self.spans, begin, begin + len(line))
                marked[first:last] = True
            begin += len(line)
        return marked


class PromptTexts:
    """Makes texts from the prompts of one vocabulary; remembers its tokens' bytes.

    Args:
        vocabulary: of the prompts.
        is_known: whether the text of a control token is a control token of the other vocabulary too; else it is left
            out.
    """

    def __init__(self, vocabulary: Pieces, is_known: Callable[[bytes], bool]) -> None:
        self._vocabulary = vocabulary
        self._is_known = is_known
        self._pieces: dict[int, tuple[bytes, bool]] = {}

    def text(self, ids: Sequence[int]) -> PromptText:
        """A prompt's text."""
        found = [self._piece(token) for token in ids]
        pieces = [piece for piece, _ in found]
        is_control = np.array([control for _, control in found], np.bool_)
        return PromptText(clean_text(b"".join(pieces)), spans_of(pieces), is_control)

    def _piece(self, token: int) -> tuple[bytes, bool]:
        known = self._pieces.get(token)
        if known is None:
            plain = self._vocabulary.piece(token)
            written = self._vocabulary.piece(token, special=True)
            is_control = not plain and bool(written)
            known = (written if is_control and self._is_known(written) else plain), is_control
            self._pieces[token] = known
        return known


def compile_headings(pattern: Optional[str]) -> Optional[re.Pattern[bytes]]:
    """A pattern for ``PromptText.lines_matching``.

    Raises:
        ValueError: it is no regular expression.
    """
    if pattern is None:
        return None
    if not isinstance(pattern, str):
        raise TypeError(f"headings is {pattern!r}, expected a regular expression as text, such as '#+ '")
    try:
        return re.compile(pattern.encode("utf-8"))
    except (re.error, UnicodeEncodeError) as error:
        raise ValueError(
            f"headings is {pattern!r}, expected a regular expression for the begin of a line: {error}"
        ) from error
