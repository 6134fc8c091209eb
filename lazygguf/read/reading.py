"""What is about to be read, who reads it, and who is told.

Owns the interfaces between a context (``context.py``), its native session and whatever chooses what is read first
(``draft_reader.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional, Protocol

import numpy as np
import numpy.typing as npt

from .stats import Stats

ProgressCallback = Callable[[int, int], Any]
QuerySpan = Optional[tuple[int, int]]
Scores = Optional[npt.NDArray[np.float32]]


class Session(Protocol):
    """What a native session offers (``_ffi.NativeSession``)."""

    n_ctx: int

    @property
    def n_tokens(self) -> int: ...
    def eval(
        self,
        ids: Any,
        query_span: QuerySpan = None,
        progress: Optional[ProgressCallback] = None,
        scores: Scores = None,
        attention: Any = None,
        protect: Sequence[int] = (),
    ) -> Any: ...
    def logits(self) -> Optional[npt.NDArray[np.float32]]: ...
    def live(self, segment: int) -> npt.NDArray[np.int32]: ...
    def scores(self, segment: int) -> Scores: ...
    def reset(self) -> None: ...
    def trim(self, n_tokens: int) -> None: ...
    def cached(self, segment: int) -> npt.NDArray[np.int32]: ...
    def forget(self, positions: npt.ArrayLike) -> None: ...
    def cancel(self) -> None: ...
    def stats(self) -> Any: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Reading:
    """Tokens to read after those that are there.

    Attributes:
        ids: the whole context, old tokens and new ones.
        n_past: old ones.
        query_span: positions [begin, end) of the question, None where nothing is known.
        protect: positions that are never pruned, ascending.
        recent: positions that are read whatever a draft thinks of them.
    """

    ids: Sequence[int]
    n_past: int
    query_span: QuerySpan = None
    protect: Sequence[int] = ()
    recent: Sequence[int] = ()

    @property
    def new(self) -> npt.NDArray[np.int32]:
        """The tokens to read."""
        return np.asarray(self.ids[self.n_past :], np.int32)


@dataclass(frozen=True)
class Told:
    """Who is told while a prompt is read; what they raise stops the reading.

    Attributes:
        read: of the large model's progress, tokens read and tokens to read.
        skim: of the draft's, in its own tokens.
        check: called now and then where there is no progress to tell.
    """

    read: ProgressCallback
    skim: ProgressCallback
    check: Callable[[], None]


class PromptReader(Protocol):
    """Reads prompts into a session in its own way."""

    def read(self, session: Session, reading: Reading, told: Told) -> Stats:
        """Reads; on any failure the session holds the tokens of before, some of which may wait unread again."""

    def cancel(self) -> None:
        """Stops the reading under way, from any thread."""

    def reset(self) -> None:
        """Forgets every prompt."""

    def close(self) -> None:
        """Frees memory."""
