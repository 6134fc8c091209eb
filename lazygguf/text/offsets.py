"""Tokens of two vocabularies over one text, matched by the bytes they cover.

Owns where each token lies in a text, and how numbers by tokens of one vocabulary become numbers by tokens of another.
A token is only its bytes here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Spans = npt.NDArray[np.int64]  # (n_tokens, 2): bytes [begin, end) of each token

_LOST_BYTES = 64  # bytes after a token that is not in the text in which the next one is searched
_SPACE_SIGN = "\u2581".encode()
_BAD_BYTE = re.compile("[\udc80-\udcff]")


def clean_text(data: bytes) -> bytes:
    """The text with question marks for what a tokenizer would not give back; offsets stay what they are.

    That is bytes that are not UTF-8, and the sign that SentencePiece takes for a space.
    """
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        data = _BAD_BYTE.sub("?", data.decode("utf-8", "surrogateescape")).encode("utf-8")
    return data.replace(_SPACE_SIGN, b"???")


def spans_of(pieces: Sequence[bytes]) -> Spans:
    """Where tokens lie in the text that they make together."""
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    begins = np.concatenate([np.zeros(1, np.int64), ends])[: len(ends)]
    return np.stack([begins, ends], axis=1)


def token_spans(text: bytes, pieces: Sequence[bytes]) -> Spans:
    """Where tokens lie in a text that they were made from.

    A tokenizer may have put a space before a word (SentencePiece) that the text does not have: it covers nothing. It
    may have left out bytes that its vocabulary does not have: the next token covers them too. Tokens whose bytes are
    not in the text (an unknown character's) cover what lies between their neighbours.

    Args:
        text: the text.
        pieces: the bytes of each token, in order.

    Returns:
        (n_tokens, 2), begins and ends that never fall; together they cover the whole text. A token that covers
        nothing has an end equal to its begin.
    """
    if b"".join(pieces) == text:  # what most tokenizers give: nothing has to be searched
        return spans_of(pieces)
    spans = np.zeros((len(pieces), 2), np.int64)
    cursor, n_lost = 0, 0
    for i, piece in enumerate(pieces):
        begin, end = _place(text, piece, cursor, _LOST_BYTES * (n_lost + 1))
        if begin < 0:
            n_lost += 1
            continue
        spans[i - n_lost : i] = cursor, begin
        spans[i] = begin if n_lost else cursor, end
        cursor, n_lost = end, 0
    if n_lost:
        spans[-n_lost:] = cursor, len(text)
    spans[-1:, 1] = len(text)
    return spans


def _place(text: bytes, piece: bytes, cursor: int, slack: int) -> tuple[int, int]:
    """Bytes [begin, end) of a token at the cursor, or up to ``slack`` bytes after it; (-1, -1): it is not there."""
    bare = piece[1:] if piece[:1] == b" " else piece
    for wanted in (piece, bare):
        if text.startswith(wanted, cursor):
            return cursor, cursor + len(wanted)
    for wanted in (piece, bare):
        begin = text.find(wanted, cursor, cursor + slack + len(wanted))
        if begin >= 0:
            return begin, begin + len(wanted)
    return -1, -1


def shared_max(values: npt.NDArray[np.float32], spans: Spans, wanted: Spans) -> npt.NDArray[np.float32]:
    """Numbers of tokens as numbers of other tokens over the same text.

    Args:
        values: (n,) of the tokens that lie at ``spans``.
        spans: (n, 2), as ``token_spans`` gives them.
        wanted: (n_wanted, 2), likewise.

    Returns:
        (n_wanted,): the highest number among the tokens that share a byte with each; NaN where none does.
    """
    covers = spans[:, 1] > spans[:, 0]
    begins, ends = spans[covers].T
    first = np.searchsorted(ends, wanted[:, 0], side="right")
    last = np.searchsorted(begins, wanted[:, 1], side="left")
    shares = (first < last) & (wanted[:, 1] > wanted[:, 0])
    out = np.full(len(wanted), np.nan, np.float32)
    if shares.any():
        bounds = np.stack([first[shares], last[shares]], axis=1).ravel()
        padded = np.append(values[covers], np.float32(-np.inf))  # a bound may be one past the last token
        out[shares] = np.maximum.reduceat(padded, bounds)[::2]
    return out


def tokens_over(spans: Spans, begin: int, end: int) -> tuple[int, int]:
    """Tokens [first, last) that share a byte with bytes [begin, end)."""
    first = int(np.searchsorted(spans[:, 1], begin, side="right"))
    last = int(np.searchsorted(spans[:, 0], end, side="left"))
    return first, max(first, last)
