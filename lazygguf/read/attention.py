"""A model's attention: tokens are read densely, only as far as the last layer whose attention is wanted.

Owns such readings, which compute neither the last layer's output nor logits. A draft model scores a prompt with them,
and ``lazygguf calibrate`` finds heads with them. The K/V rows stay, so that a later prompt with the same beginning is
read from where it differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, Optional

import numpy as np
import numpy.typing as npt

from .._ffi import AttentionRequest, NativeModel, NativeSession, ProgressCallback
from ..errors import ContextFullError
from ..schedule.keep_schedule import MAX_QUERY
from .tokens import SessionTokens


class AttentionReader:
    """Reads tokens and gives the attention of some of them. One thread at a time.

    Args:
        weights: the model; it can carry other readers and contexts.
        n_layer: layers read, at least 1; the last of them only as far as its attention. None is all of them.
        n_ctx: tokens it can hold; 0 is the length the model was trained with.
        n_ubatch: tokens computed at once.
        n_threads: threads.
        type_kv: type of the K and V cache, ``"f16"``, ``"f32"`` or ``"q8_0"``.

    Attributes:
        n_layer: layers read.
        n_ctx: tokens it can hold.
        n_read: tokens computed by the last ``read``; the others were there already.

    Raises:
        ValueError: a number is out of range.
        MemoryError: the K/V rows cannot be allocated.
    """

    def __init__(
        self,
        weights: NativeModel,
        n_layer: Optional[int] = None,
        *,
        n_ctx: int = 0,
        n_ubatch: int = 512,
        n_threads: int = 1,
        type_kv: str = "f16",
    ) -> None:
        self.n_layer = weights.n_layer if n_layer is None else n_layer
        if not 1 <= self.n_layer <= weights.n_layer:
            raise ValueError(f"n_layer is {n_layer}, expected a value in [1, {weights.n_layer}]")
        self.n_read = 0
        self._session: Optional[NativeSession] = NativeSession(
            weights, n_ctx, n_ubatch, n_threads, type_k=type_kv, type_v=type_kv, n_layer=self.n_layer
        )
        self.n_ctx = self._session.n_ctx
        self._tokens = SessionTokens(self._session)

    def read(
        self,
        ids: Sequence[int],
        query_span: tuple[int, int],
        layers: Optional[Sequence[int]] = None,
        *,
        by_head: bool = False,
        by_query: bool = False,
        progress: Optional[ProgressCallback] = None,
    ) -> npt.NDArray[np.float32]:
        """Makes the context hold exactly these tokens and gives the attention of those that ask.

        Args:
            ids: the whole context, (n_tokens,).
            query_span: positions [begin, end) that ask, 1 to 128 of them. These and all that follows are read again
                even if they are in the context.
            layers: which layers' attention, ascending, each below ``n_layer``; None is all that are read.
            by_head: every head and asking row by itself.
            by_query: every asking row by itself, the mean over its heads.
            progress: called after every ubatch with tokens read and tokens to read; what it raises is raised here.

        Returns:
            float32. By head, (n_layers, n_query, n_head, n_tokens): each row a softmax over the tokens up to its own,
            0 after it. By query, (n_layers, n_query, n_tokens): the mean over the heads. Else (n_layers, n_tokens): the
            mean over the heads and the asking rows.

        Raises:
            ContextFullError: the tokens do not fit; nothing changed.
            ValueError: no token, an id outside the vocabulary, or a span or layer that is not there.
            MemoryError: by head there are too many numbers for the memory.
            LazyError: the weights give NaN or Inf, or the backend failed.
        """
        session = self._open()
        self._check(ids, query_span)
        wanted = AttentionRequest(tuple(range(self.n_layer) if layers is None else layers), by_head, by_query)
        n_common = min(self._tokens.n_common(ids), query_span[0])
        self._tokens.trim(n_common)
        self._tokens.extend(ids[n_common:])
        out = session.eval(ids[n_common:], query_span, progress, attention=wanted)
        self.n_read = len(ids) - n_common
        assert out is not None
        return out

    def _check(self, ids: Sequence[int], query_span: tuple[int, int]) -> None:
        begin, end = query_span
        if not 0 <= begin < end <= len(ids) or end - begin > MAX_QUERY:
            raise ValueError(f"query_span is [{begin}, {end}), expected 1 to {MAX_QUERY} of the {len(ids)} tokens")
        if len(ids) > self.n_ctx:
            raise ContextFullError(f"{len(ids)} tokens do not fit into a context of n_ctx {self.n_ctx}; raise it")

    @property
    def ids(self) -> list[int]:
        """The tokens held, a copy."""
        self._open()
        return self._tokens.ids

    def saved_bytes(self) -> int:
        """How many bytes ``save`` gives now."""
        return self._open().saved_bytes()

    def save(self, write: Callable[[memoryview], Any]) -> None:
        """Gives what was read as bytes; see ``_ffi.NativeSession.save``."""
        self._open().save(write)

    def load(self, n_bytes: int, read_into: Callable[[memoryview], Any]) -> None:
        """Takes what ``save`` gave; see ``_ffi.NativeSession.load``."""
        session = self._open()
        self._tokens.unknown()
        session.load(n_bytes, read_into)

    def reset(self) -> None:
        """Forgets all tokens and gives their memory back."""
        self._open().reset()
        self._tokens.trim(0)

    def cancel(self) -> None:
        """Stops the read under way, from any thread; it raises ``Cancelled`` and leaves what it had before."""
        if self._session is not None:
            self._session.cancel()

    def close(self) -> None:
        """Frees the memory; a second call does nothing."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def __enter__(self) -> AttentionReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open(self) -> NativeSession:
        if self._session is None:
            raise RuntimeError("the reader is closed")
        return self._session
