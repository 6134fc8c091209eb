"""Token ids of a prompt in which some texts of control tokens are markup and the others somebody's words.

Owns the texts that a vocabulary has for its control tokens. Who wrote which part of a prompt is said by the caller
(``said_text.py``, ``prompt_text.py``).
"""

from __future__ import annotations

import ctypes
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Optional

import llama_cpp
import numpy as np

from .tokenizer import Tokenizer

Span = tuple[int, int]

_N_BLOCK = 256  # tokens that are searched for control tokens at once
_N_PREFIX = 3  # first bytes of a control token's text that are looked for before its whole text
_CONTROL = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN


class Markup:
    """The control tokens of one vocabulary as texts. The vocabulary is searched when they are first asked for."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def tokenize(self, text: bytes, said: Sequence[Span] = ()) -> list[int]:
        """Token ids; the texts of control tokens become those tokens, except where somebody said a part of one.

        Args:
            text: the prompt.
            said: bytes [begin, end) of it that are somebody's, ascending, without overlaps.
        """
        if not said:
            return self._tokenizer.tokenize(text, add_bos=False, special=True)
        spans = self._spans(text)
        return self._tokenize(text, spans, [_overlaps(said, begin, end) for begin, end in spans])

    def tokenize_only(self, text: bytes, markup: Sequence[Span]) -> list[int]:
        """Token ids of a text in which the control tokens are known.

        Args:
            text: the text.
            markup: bytes [begin, end) of its control tokens; every other control token's text stays text.
        """
        known, spans = set(markup), self._spans(text)
        said = [span not in known for span in spans]
        if not any(said):
            return self._tokenizer.tokenize(text, add_bos=False, special=True)
        return self._tokenize(text, spans, said)

    # ---- tokens

    def _tokenize(self, text: bytes, spans: Sequence[Span], said: Sequence[bool]) -> list[int]:
        """Runs without doubtful texts are tokenized as one, the others as text alone."""
        ids: list[int] = []
        begin = done = 0  # of the text between two control tokens, and of what is tokenized already
        is_said = False
        before: Optional[Span] = None
        for span, text_only in [*zip(spans, said), ((len(text), len(text)), False)]:
            if text_only:
                is_said = True
                continue
            if is_said:
                if done < begin:
                    ids += self._tokenizer.tokenize(text[done:begin], add_bos=False, special=True)
                ids += self._text_ids(self._stripped(text, (begin, span[0]), before, span))
                done = span[0]
            begin, is_said, before = span[1], False, span
        if done < len(text):
            ids += self._tokenizer.tokenize(text[done:], add_bos=False, special=True)
        return ids

    def _stripped(self, text: bytes, inner: Span, before: Optional[Span], after: Span) -> bytes:
        """The text between two control tokens without the blanks that they take along, as llama.cpp does it."""
        part = text[slice(*inner)]
        if before is not None and self._attributes(text[slice(*before)]) & llama_cpp.LLAMA_TOKEN_ATTR_RSTRIP:
            part = part.lstrip()
        if after[0] < after[1] and self._attributes(text[slice(*after)]) & llama_cpp.LLAMA_TOKEN_ATTR_LSTRIP:
            part = part.rstrip()
        return part

    def _attributes(self, text: bytes) -> int:
        return int(llama_cpp.llama_vocab_get_attr(self._tokenizer.vocab, self._texts[text]))

    def _text_ids(self, text: bytes) -> list[int]:
        """Ids of text alone. A merge of text tokens can give a control token: its text is cut in two then."""
        ids: list[int] = []
        for token in self._tokenizer.tokenize(text, add_bos=False, special=False):
            if token in self._ids:
                spelled = self._tokenizer.piece(token, special=True)
                ids += self._inner_ids(spelled[:1]) + self._inner_ids(spelled[1:])
            else:
                ids.append(token)
        return ids

    def _inner_ids(self, text: bytes) -> list[int]:
        """Ids of a text that does not begin a word: SentencePiece's space before the first word is not in them."""
        ids = self._tokenizer.tokenize(b"\n" + text, add_bos=False, special=False)
        pieces = [self._tokenizer.piece(token, special=True) for token in ids]
        for n in range(len(ids) + 1):
            if b"".join(pieces[n:]) == text:
                return [token for token in ids[n:] if token not in self._ids]
        return [token for token in ids if token not in self._ids]

    # ---- texts

    def _spans(self, text: bytes) -> list[Span]:
        """Bytes [begin, end) of the control tokens' texts, the longest of those that begin at one place."""
        return list(self._find(text)) if self._texts else []

    def _find(self, text: bytes) -> Iterator[Span]:
        begin = 0
        while True:
            match = self._first.search(text, begin)
            if match is None:
                return
            begin = match.start()
            for n in self._lengths:
                if text[begin : begin + n] in self._texts:
                    yield begin, begin + n
                    begin += n
                    break
            else:
                begin += 1

    @cached_property
    def _texts(self) -> dict[bytes, int]:
        """The tokens by their texts: what llama.cpp makes a control token of where it looks for them."""
        vocab, found = self._tokenizer.vocab, {}
        for token in _unwritten_tokens(vocab, self._tokenizer.n_vocab):
            text = llama_cpp.llama_vocab_get_text(vocab, token)
            if text and llama_cpp.llama_vocab_get_attr(vocab, token) & _CONTROL:
                found[text] = token
        return found

    @cached_property
    def _ids(self) -> set[int]:
        return set(self._texts.values())

    @cached_property
    def _lengths(self) -> list[int]:
        return sorted({len(text) for text in self._texts}, reverse=True)

    @cached_property
    def _first(self) -> re.Pattern[bytes]:
        """How control tokens' texts begin."""
        return re.compile(b"|".join(re.escape(begin) for begin in sorted({text[:_N_PREFIX] for text in self._texts})))


def _overlaps(said: Sequence[Span], begin: int, end: int) -> bool:
    """Whether a byte of [begin, end) is somebody's."""
    i = bisect_left(said, (end, 0)) - 1  # the last one that begins before ``end``
    return i >= 0 and said[i][1] > begin


def _unwritten_tokens(vocab: Any, n_vocab: int) -> Iterator[int]:
    """The tokens that llama.cpp leaves out where it writes tokens as text: control tokens, and unused ones.

    A vocabulary has up to 262,144 tokens, too many to be asked one by one before an answer. So blocks are written with
    and without control tokens, and only those are looked into that differ.
    """
    ids = np.arange(n_vocab, dtype=np.int32)
    buffer = ctypes.create_string_buffer(1 << 16)

    def size(begin: int, end: int, special: bool) -> int:
        tokens = ids[begin:end].ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        # a buffer that is too small gives the size as a negative number
        return abs(int(llama_cpp.llama_detokenize(vocab, tokens, end - begin, buffer, len(buffer), False, special)))

    blocks = [(begin, min(begin + _N_BLOCK, n_vocab)) for begin in range(0, n_vocab, _N_BLOCK)]
    while blocks:
        begin, end = blocks.pop()
        without = size(begin, end, special=False)
        if without == size(begin, end, special=True):
            continue
        if without == 0 or end - begin == 1:
            yield from range(begin, end)
        else:
            middle = (begin + end) // 2
            blocks += [(begin, middle), (middle, end)]
