"""JSON schemas over tokens: which tokens may come next, by llguidance.

Owns llguidance's view of a vocabulary (one for each open model) and the matcher of a generation. llguidance decides
about text, this file about the ends of an answer: where the text so far is a whole value, any end-of-generation token
may come.
"""

from __future__ import annotations

import weakref
from typing import Any

import llguidance
import numpy as np
import numpy.typing as npt

from ..errors import LazyError
from .json_schema import JsonSchema, one_line
from .tokenizer import Tokenizer

_vocabularies: weakref.WeakKeyDictionary[Tokenizer, _Vocabulary] = weakref.WeakKeyDictionary()


class SchemaFilter:
    """One schema and where a generation stands in it."""

    def __init__(self, tokenizer: Tokenizer, schema: JsonSchema) -> None:
        """Raises ValueError with llguidance's reason when the schema is too complex."""
        vocabulary = _vocabularies.get(tokenizer)
        if vocabulary is None:
            vocabulary = _vocabularies[tokenizer] = _Vocabulary(tokenizer)
        self._vocabulary = vocabulary
        self._ended = False
        self._matcher: Any = llguidance.LLMatcher(vocabulary.tokens, schema.grammar, log_level=0)
        if self._matcher.is_error():
            raise ValueError(f"JSON schema cannot be enforced: {one_line(self._matcher.get_error())}")

    def apply(self, candidates: npt.NDArray[Any]) -> None:
        """Sets the logits of the tokens that are forbidden now to ``-inf``.

        Args:
            candidates: (n_vocab,) of llama.cpp's ``llama_token_data``, in the order of the ids.

        Raises:
            LazyError: the schema became too complex for llguidance.
        """
        ends = self._vocabulary.ends
        allowed = np.zeros(len(candidates), bool)
        if not self._ended and not self._matcher.is_stopped():
            bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
            allowed = np.unpackbits(bits, count=len(candidates), bitorder="little").view(bool)
        allowed[ends] = self._may_end()
        candidates["logit"][~allowed] = -np.inf

    def allows(self, token: int) -> bool:
        """Whether the token may come next."""
        if token in self._vocabulary.end_ids:
            return self._may_end()
        if self._ended or self._matcher.is_stopped():
            self._check()
            return False
        fits = bool(self._matcher.validate_tokens([token]) == 1)
        self._check()
        return fits

    def accept(self, token: int) -> None:
        """Goes on by one token; ValueError when the schema forbids it."""
        if not self.allows(token):
            raise ValueError(f"the grammar does not allow token {token} here")
        if token in self._vocabulary.end_ids:
            self._ended = True
            return
        self._matcher.consume_token(token)
        self._check()

    def close(self) -> None:
        """Frees the matcher; a second call does nothing."""
        self._matcher = None

    def _may_end(self) -> bool:
        whole = not self._ended and bool(self._matcher.is_accepting())
        self._check()
        return whole

    def _check(self) -> None:
        if self._matcher.is_error():
            raise LazyError(f"the JSON schema became too complex: {one_line(self._matcher.get_error())}")


class _Vocabulary:
    """A model's tokens for llguidance.

    Attributes:
        tokens: llguidance's trie of them.
        ends: the ids of the end-of-generation tokens, an array.
        end_ids: the same, a set.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        ids = range(tokenizer.n_vocab)
        self.ends = np.array([token for token in ids if tokenizer.is_eog(token)], np.int64)
        self.end_ids = frozenset(int(token) for token in self.ends)
        texts = [b"" if token in self.end_ids else tokenizer.piece(token) for token in ids]
        self.tokens = llguidance.LLTokenizer(_Texts(texts))


class _Texts(llguidance.TokenizerWrapper):
    """What llguidance asks of a vocabulary.

    Tokens without a text are never allowed. Its end token is one more than the model has: where an answer may end is
    decided in SchemaFilter.
    """

    def __init__(self, texts: list[bytes]) -> None:
        self.tokens = [*texts, b"<end>"]
        self.eos_token_id = len(texts)
        self.bos_token_id = None
        self.special_token_ids = [len(texts)]
        self.is_tokenizer_wrapper = True

    def __call__(self, text: Any) -> list[int]:
        """Tokenizes text that must come, which the grammars here never ask for."""
        raise NotImplementedError
