"""What of a prompt is a template's markup and what is somebody's text, and token ids that keep both apart.

Owns the texts that a vocabulary has for its control tokens, and the marks that say where such a text was written by
someone other than the template. The marks go through the template with the messages: a character that no text may hold
(a noncharacter of Unicode) and that these messages do not hold, inside each text that must not become a control token.
It comes out of a template as it went in, whether that trims, cuts or quotes; JSON and URLs escape it. What the template
itself composes, such as ``'<|' + role + '|>'``, is its markup.
"""

from __future__ import annotations

import ctypes
import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Optional
from urllib.parse import quote

import llama_cpp
import numpy as np

from .tokenizer import Tokenizer, encode_text

Span = tuple[int, int]

_MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]  # noncharacters, three bytes each
MAX_NESTING = 100  # of lists and objects in a message
_N_BLOCK = 256  # tokens that are searched for control tokens at once
_N_PREFIX = 3  # first bytes of a control token's text that are looked for before its whole text
_WORD = re.compile(rb"\w*")
_CONTROL = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN


class MarkedTurns(NamedTuple):
    """Messages for a template.

    Attributes:
        turns: the messages, marked where one holds the text of a control token.
        mark: what stands there; not in the messages otherwise.
    """

    turns: list[dict[str, Any]]
    mark: str


class Markup:
    """The control tokens of one vocabulary as texts. The vocabulary is searched when they are first asked for."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def marked(self, turns: Sequence[Mapping[str, Any]]) -> MarkedTurns:
        """Messages whose control-token texts are broken by a mark. Messages without such texts stay as they are."""
        texts = [text for turn in turns for text in _texts(turn)]
        mark = next((mark for mark in _MARKS if not any(form in text for form in _forms(mark) for text in texts)), "")
        if not mark:
            raise ValueError(f"messages hold all of U+{ord(_MARKS[0]):X} to U+{ord(_MARKS[-1]):X}, which are no text")
        return MarkedTurns([self._marked(turn, mark) for turn in turns], mark)

    def tokenize(self, text: bytes, breaks: Sequence[int] = ()) -> list[int]:
        """Token ids; the texts of control tokens become those tokens, except where a break says otherwise.

        Args:
            text: the prompt.
            breaks: ascending positions in it. What lies on both sides of one is not the same control token.
        """
        if not breaks:
            return self._tokenizer.tokenize(text, add_bos=False, special=True)
        spans = self._spans(text)
        return self._tokenize(text, spans, [_holds(breaks, begin, end) for begin, end in spans])

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

    # ---- marks

    def _marked(self, value: Any, mark: str) -> Any:
        if isinstance(value, str):
            return self._broken(value, mark)
        if isinstance(value, Mapping):
            return {self._marked(key, mark): self._marked(item, mark) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._marked(item, mark) for item in value]
        return value

    def _broken(self, text: str, mark: str) -> str:
        data = text.encode("utf-8", "surrogatepass")
        at = [begin + 1 for begin, _ in self._spans(data)]
        at += self._part_breaks(data)
        if not at:
            return text
        bounds = [0, *sorted(set(at)), len(data)]
        parts = [data[begin:end] for begin, end in zip(bounds, bounds[1:])]
        return mark.encode().join(parts).decode("utf-8", "surrogatepass")

    def _part_breaks(self, data: bytes) -> list[int]:
        """Where a text is to be broken that makes a control token's text together with what stands around it."""
        begin, end = len(data) - len(data.lstrip()), len(data.rstrip())
        most = min(end - begin, self._longest - 1)
        at = [begin] if any(self._is_end(data[begin : begin + n]) for n in range(1, most + 1)) else []
        at += [end] if any(self._is_begin(data[end - n : end]) for n in range(1, most + 1)) else []
        inner = data[begin:end] if 0 < end - begin < self._longest else b""
        if inner and not _WORD.fullmatch(inner) and any(inner in text for text in self._texts):
            at += [begin, end]
            at += [begin + 1] if inner[1:2] and inner[1] & 0xC0 != 0x80 and inner[0] < 0x80 else []
        return at

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
    def _longest(self) -> int:
        return max(self._lengths, default=1)

    @cached_property
    def _first(self) -> re.Pattern[bytes]:
        """How control tokens' texts begin."""
        return re.compile(b"|".join(re.escape(begin) for begin in sorted({text[:_N_PREFIX] for text in self._texts})))

    def _is_begin(self, part: bytes) -> bool:
        """Whether a control token's text begins so; a word alone is no sign of that."""
        return part[:1] in self._first_bytes and part in self._begins and not _WORD.fullmatch(part)

    def _is_end(self, part: bytes) -> bool:
        return part[-1:] in self._last_bytes and part in self._ends and not _WORD.fullmatch(part)

    @cached_property
    def _first_bytes(self) -> set[bytes]:
        return {text[:1] for text in self._texts}

    @cached_property
    def _last_bytes(self) -> set[bytes]:
        return {text[-1:] for text in self._texts}

    @cached_property
    def _begins(self) -> set[bytes]:
        return {text[:n] for text in self._texts for n in range(1, len(text))}

    @cached_property
    def _ends(self) -> set[bytes]:
        return {text[n:] for text in self._texts for n in range(1, len(text))}


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    """Every text in a message."""
    if depth > MAX_NESTING:
        raise ValueError(f"messages nest deeper than {MAX_NESTING} levels")
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part, depth + 1)
    elif value is not None and not isinstance(value, (bool, int, float)):
        raise TypeError(
            f"messages hold {repr(value)[:80]}, expected text, numbers, lists and dicts (an object's model_dump())"
        )


def _forms(mark: str) -> tuple[str, str, str]:
    """How a mark comes out of a template: as it is, in JSON and in a URL."""
    return mark, json.dumps(mark)[1:-1], quote(mark)


def behind_last_mark(text: str, mark: str) -> str:
    """What a template wrote behind the last mark; the whole text where there is none."""
    return _split(text, mark)[-1]


def _split(text: str, mark: str) -> list[str]:
    return re.split("|".join(map(re.escape, _forms(mark))), text)


def split_at_marks(text: str, mark: str) -> tuple[str, list[int]]:
    """A rendered text without its marks, also those that became escapes in JSON or a URL, and where they stood.

    Returns:
        The text, and positions in its UTF-8 (``encode_text``), ascending.
    """
    parts = _split(text, mark)
    n_bytes = np.cumsum([len(encode_text(part)) for part in parts[:-1]], dtype=np.int64)
    return "".join(parts), [int(n) for n in n_bytes]


def _holds(breaks: Sequence[int], begin: int, end: int) -> bool:
    """Whether a position lies inside a span, not at its ends."""
    i = bisect_right(breaks, begin)
    return i < len(breaks) and breaks[i] < end


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
