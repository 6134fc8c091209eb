"""Text to token ids and back, by llama.cpp's own vocabulary code.

Owns a ``vocab_only`` llama.cpp model (no weights) and the checks in front of it. The file must have passed
the native core's vocabulary checks before: llama.cpp counts on what they check.

Unclean text is read as follows: NUL bytes are ordinary bytes, invalid UTF-8 becomes U+FFFD inside
llama.cpp's pre-tokenizers, and lone surrogates of a ``str`` become U+FFFD in ``encode_text``.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Iterable
from typing import Any, Union

import llama_cpp
import numpy as np
import numpy.typing as npt

from ..errors import ModelFileError
from ..worker import Worker
from .llama_log import captured_log

logger = logging.getLogger("lazygguf")

MAX_TEXT_BYTES = 2**31 - 1  # llama_tokenize takes an int32 length
_PIECE_BYTES = 64

TokenIds = Union[Iterable[int], npt.NDArray[Any]]


class Tokenizer:
    """The vocabulary of one model file.

    Attributes:
        n_vocab: tokens in the vocabulary.
        add_bos: prompts of this model begin with the BOS token.
        vocab: llama.cpp's vocabulary pointer, for its samplers; None when closed.
    """

    def __init__(self, path: str) -> None:
        self._model = _load_vocab(path)
        self.vocab: Any = llama_cpp.llama_model_get_vocab(self._model)
        self.n_vocab = int(llama_cpp.llama_vocab_n_tokens(self.vocab))
        self.add_bos = bool(llama_cpp.llama_vocab_get_add_bos(self.vocab))
        self._buffer = ctypes.create_string_buffer(_PIECE_BYTES)
        self._warned = False

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        """Token ids of UTF-8 text.

        Args:
            text: the text as bytes.
            add_bos: begin with BOS (and end with EOS) where the model's files say so.
            special: read the text of control tokens such as ``<|im_end|>`` as those tokens.

        Raises:
            TypeError: ``text`` is not bytes.
            ValueError: ``text`` is longer than 2 GiB.
        """
        if isinstance(text, str):
            raise TypeError('text is str, expected bytes: pass text.encode("utf-8")')
        if not isinstance(text, (bytes, bytearray, memoryview)):
            raise TypeError(f"text is {repr(text)[:60]}, expected bytes")
        text = bytes(text)
        if len(text) > MAX_TEXT_BYTES:
            raise ValueError(f"text has {len(text)} bytes, expected at most {MAX_TEXT_BYTES}")
        n_room = min(len(text) + 8, MAX_TEXT_BYTES)  # a token is at least one byte; BOS, EOS and a space come on top
        ids = np.empty(n_room, np.int32)
        n = self._tokenize_into(ids, text, add_bos, special)
        if n < 0:
            ids = np.empty(-n, np.int32)
            n = self._tokenize_into(ids, text, add_bos, special)
        if n < 0:
            raise ValueError(f"llama.cpp cannot tokenize this text of {len(text)} bytes")
        if add_bos and special and n > 1 and self.add_bos:
            self._check_bos(ids[:2])
        return [int(token) for token in ids[:n]]

    def detokenize(self, ids: TokenIds, special: bool = False) -> bytes:
        """The bytes of token ids, as ``llama_cpp.Llama.detokenize`` gives them.

        Args:
            ids: token ids.
            special: write control tokens as text; else they are nothing.

        Raises:
            ValueError: an id is outside the vocabulary.
        """
        checked = self.check_ids(ids)
        text = b"".join(self.piece(int(token), special) for token in checked)
        # SentencePiece vocabularies put a space before the first word, which was not in the text
        drop = len(checked) > 0 and checked[0] == self.token_bos() and text[:1] == b" "
        return text[1:] if drop else text

    def piece(self, token: int, special: bool = False) -> bytes:
        """The bytes of one token."""
        if not 0 <= token < self.n_vocab:
            raise ValueError(f"token id is {token}, expected a value in [0, {self.n_vocab})")
        n = llama_cpp.llama_token_to_piece(self._open(), token, self._buffer, len(self._buffer), 0, special)
        if n < 0:
            self._buffer = ctypes.create_string_buffer(-n)
            n = llama_cpp.llama_token_to_piece(self._open(), token, self._buffer, len(self._buffer), 0, special)
        return self._buffer.raw[:n]

    def check_ids(self, ids: TokenIds) -> npt.NDArray[np.int32]:
        """The ids as an int32 array (n_tokens,).

        Raises:
            ValueError: an id is outside the vocabulary.
            TypeError: an id is not an integer.
        """
        if isinstance(ids, (str, bytes, bytearray)) or not isinstance(ids, (Iterable, np.ndarray)):
            raise TypeError(f"tokens is {repr(ids)[:60]}, expected a list of token ids; tokenize() makes one of bytes")
        array = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids))
        if array.size == 0:
            return np.empty(0, np.int32)
        if array.dtype == object and all(isinstance(token, int) for token in array):
            raise ValueError(f"token ids hold values outside [0, {self.n_vocab})")
        if array.dtype.kind not in "iu" or array.ndim != 1:
            raise TypeError(f"token ids are {array.dtype} of {array.ndim} dimensions, expected a list of integers")
        bad = array[(array < 0) | (array >= self.n_vocab)]
        if bad.size:
            raise ValueError(f"token id is {int(bad[0])}, expected a value in [0, {self.n_vocab})")
        return array.astype(np.int32)

    def is_eog(self, token: int) -> bool:
        """Whether the token ends a generation (EOS, EOT and the like)."""
        return bool(llama_cpp.llama_vocab_is_eog(self._open(), token))

    def token_bos(self) -> int:
        """The id of the beginning-of-text token, -1 where there is none."""
        return int(llama_cpp.llama_vocab_bos(self._open()))

    def token_eos(self) -> int:
        """The id of the end-of-text token, -1 where there is none."""
        return int(llama_cpp.llama_vocab_eos(self._open()))

    def token_nl(self) -> int:
        """The id of the line-break token, -1 where there is none."""
        return int(llama_cpp.llama_vocab_nl(self._open()))

    def close(self) -> None:
        """Frees llama.cpp's model; a second call does nothing."""
        model, self._model, self.vocab = self._model, None, None
        if model:
            llama_cpp.llama_model_free(model)

    def __del__(self) -> None:
        if getattr(self, "_model", None):
            self.close()

    def _check_bos(self, first: npt.NDArray[np.int32]) -> None:
        """Warns once of a text that begins with BOS where the model's own is put before it."""
        bos = self.token_bos()
        if bos >= 0 and not self._warned and (first == bos).all():
            self._warned = True
            text = self.piece(bos, special=True).decode("utf-8", "replace")
            logger.warning(
                "the prompt begins with %s twice: in its text, and as this model's tokenizer adds it; leave it out of "
                "the text, or give token ids made with add_bos=False",
                text,
            )

    def _tokenize_into(self, ids: npt.NDArray[np.int32], text: bytes, add_bos: bool, special: bool) -> int:
        pointer = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        return int(llama_cpp.llama_tokenize(self._open(), text, len(text), pointer, len(ids), add_bos, special))

    def _open(self) -> Any:
        if self.vocab is None:
            raise RuntimeError("the model is closed")
        return self.vocab


def encode_text(text: str) -> bytes:
    """UTF-8 of any ``str``: surrogate pairs are joined and lone surrogates become U+FFFD."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode("utf-8")


def _last_error(lines: list[str]) -> str:
    said = [line.strip() for line in lines if "error" in line.lower()]
    return f": {said[-1]}" if said else ""


def _load_vocab(path: str) -> Any:
    """llama.cpp's model of the vocabulary alone.

    Loaded in a thread: Ctrl-C raises in the main thread, which in a callback inside ``llama_model_load`` would be lost.
    """

    def load() -> tuple[Any, list[str]]:
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        with captured_log() as lines:
            return llama_cpp.llama_model_load_from_file(os.fsencode(path), params), lines

    loader = Worker(load)
    try:
        loader.start()
        model, lines = loader.join()
    except BaseException:
        loaded = loader.stop()  # a fraction of a second
        if loaded and loaded[0]:
            llama_cpp.llama_model_free(loaded[0])
        raise
    if not model:
        raise ModelFileError(f"{path}: llama.cpp cannot read the vocabulary{_last_error(lines)}")
    return model
