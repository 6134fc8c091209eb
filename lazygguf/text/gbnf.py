"""Grammars in GBNF: from text or a ``llama_cpp.LlamaGrammar`` to a filter over tokens.

Owns the parsing errors and the llama.cpp grammar object of a generation. llama.cpp ends the process when a grammar is
told to accept a token it forbids, so every token is tried on it first.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import re
import tempfile
from collections.abc import Iterator
from typing import Any, Union

import llama_cpp
import numpy.typing as npt
from llama_cpp.llama_grammar import LlamaGrammar

from .llama_log import captured_log
from .tokenizer import Tokenizer

MAX_GRAMMAR_BYTES = 1 << 20
MAX_REPORT_BYTES = 1 << 16
MAX_REASON_CHARS = 200
MAX_NESTING = 256

_LITERALS = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#[^\n]*')

_SURROGATE = re.compile("[\ud800-\udfff]")

GbnfLike = Union[str, LlamaGrammar]


class GbnfFilter:
    """One grammar and where a generation stands in it."""

    def __init__(self, tokenizer: Tokenizer, grammar: GbnfLike) -> None:
        """Raises ValueError with llama.cpp's reason when the grammar cannot be parsed."""
        self._grammar: Any = None
        gbnf = _gbnf(grammar)
        with captured_log() as lines, _captured_stderr() as said:
            self._grammar = llama_cpp.llama_sampler_init_grammar(tokenizer.vocab, gbnf.encode("utf-8"), b"root")
        if not self._grammar:
            raise ValueError(f"grammar cannot be parsed{_reason(said + lines)}")
        self._one = (llama_cpp.llama_token_data * 1)()

    def apply(self, candidates: npt.NDArray[Any]) -> None:
        """Sets the logits of the tokens that the grammar forbids now to ``-inf``.

        Args:
            candidates: (n_vocab,) of llama.cpp's ``llama_token_data``, in the order of the ids.
        """
        pointer = candidates.ctypes.data_as(llama_cpp.llama_token_data_p)
        array = llama_cpp.llama_token_data_array(data=pointer, size=len(candidates), selected=-1, sorted=False)
        llama_cpp.llama_sampler_apply(self._grammar, ctypes.byref(array))

    def allows(self, token: int) -> bool:
        """Whether the token may come next."""
        self._one[0] = llama_cpp.llama_token_data(id=token, logit=0.0, p=0.0)
        array = llama_cpp.llama_token_data_array(data=self._one, size=1, selected=-1, sorted=False)
        llama_cpp.llama_sampler_apply(self._grammar, ctypes.byref(array))
        return bool(self._one[0].logit != -math.inf)

    def accept(self, token: int) -> None:
        """Goes on by one token; ValueError when the grammar forbids it."""
        if not self.allows(token):
            raise ValueError(f"the grammar does not allow token {token} here")
        llama_cpp.llama_sampler_accept(self._grammar, token)

    def close(self) -> None:
        """Frees the grammar; a second call does nothing."""
        grammar, self._grammar = self._grammar, None
        if grammar:
            llama_cpp.llama_sampler_free(grammar)

    def __del__(self) -> None:
        self.close()


def _gbnf(grammar: GbnfLike) -> str:
    text = grammar._grammar if isinstance(grammar, LlamaGrammar) else grammar
    if not isinstance(text, str):
        raise TypeError(f"grammar is {type(text).__name__}, expected GBNF text or a llama_cpp.LlamaGrammar")
    if not text.strip() or len(text) > MAX_GRAMMAR_BYTES:
        raise ValueError(f"grammar has {len(text)} characters, expected 1 to {MAX_GRAMMAR_BYTES}")
    if "\0" in text:
        raise ValueError("grammar holds a NUL character")
    if _SURROGATE.search(text):
        raise ValueError("grammar holds a lone surrogate (half of a character), expected text")
    if _nesting(text) > MAX_NESTING:
        raise ValueError(f"grammar nests {_nesting(text)} parentheses, expected at most {MAX_NESTING}")
    return text


@contextlib.contextmanager
def _captured_stderr() -> Iterator[list[str]]:
    """Catches what llama.cpp's grammar parser prints with fprintf(stderr), its only report, as lines."""
    said: list[str] = []
    try:
        real = os.dup(2)
    except OSError:  # a process without stderr
        yield said
        return
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(real, 2)
            os.close(real)
            caught.seek(0)
            said.extend(caught.read(MAX_REPORT_BYTES).decode("utf-8", "replace").splitlines())


def _nesting(text: str) -> int:
    depth = deepest = 0
    for bracket in re.findall(r"[()]", _LITERALS.sub("", text)):
        depth += 1 if bracket == "(" else -1
        deepest = max(deepest, depth)
    return deepest


def _reason(lines: list[str]) -> str:
    said = [line.strip() for line in lines if line.strip()]
    return f": {said[0].rpartition('error parsing grammar: ')[2][:MAX_REASON_CHARS]}" if said else ""
