"""What a context works with: a native session, a reader that chooses what is read, progress callbacks.

Owns the interfaces only; ``context.py`` uses them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, NamedTuple, Optional, Protocol

import numpy as np
import numpy.typing as npt

from .._ffi import ProgressCallback
from .prompt import QuerySpan, Reading
from .scores import Scores
from .stats import Stats


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
        scores: Optional[Scores] = None,
        attention: Any = None,
        protect: Sequence[int] = (),
    ) -> Any: ...
    def logits(self) -> Optional[npt.NDArray[np.float32]]: ...
    def live(self, segment: int) -> npt.NDArray[np.int32]: ...
    def scores(self, segment: int) -> Optional[Scores]: ...
    def asked_by(self, segment: int, asking: tuple[int, int]) -> Optional[Scores]: ...
    def reset(self) -> None: ...
    def trim(self, n_tokens: int) -> None: ...
    def mark(self) -> None: ...
    def cached(self, segment: int) -> npt.NDArray[np.int32]: ...
    def forget(self, positions: npt.ArrayLike) -> None: ...
    def cancel(self) -> None: ...
    def stats(self) -> Any: ...
    def tokens(self) -> npt.NDArray[np.int32]: ...
    def saved_bytes(self) -> int: ...
    def save(self, write: Callable[[memoryview], Any]) -> None: ...
    def load(self, n_bytes: int, read_into: Callable[[memoryview], Any]) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Progress:
    """Callbacks while a prompt is read; what they raise stops the reading.

    Attributes:
        read: the large model's progress: tokens read and tokens to read.
        draft: the draft's, in its own tokens.
        check: called now and then where no progress is shown.
    """

    read: ProgressCallback
    draft: ProgressCallback
    check: Callable[[], None]


class SavedCache(Protocol):
    """What can be saved of a reader (``attention.AttentionReader``)."""

    def saved_bytes(self) -> int: ...
    def save(self, write: Callable[[memoryview], Any]) -> None: ...
    def load(self, n_bytes: int, read_into: Callable[[memoryview], Any]) -> None: ...


class DraftCache(NamedTuple):
    """What a draft has read, and what that depends on, as JSON values."""

    origin: dict[str, Any]
    reader: SavedCache


class PromptReader(Protocol):
    """Decides what of a prompt a session reads (``draft.reader.DraftReader``)."""

    def read(self, session: Session, reading: Reading, progress: Progress) -> Stats:
        """Reads; on any failure the session holds the tokens of before, some of which may wait unread again."""

    def cache(self) -> Optional[DraftCache]:
        """What it has read, to be saved with a session; None where that cannot be."""

    def cancel(self) -> None:
        """Stops the reading under way, from any thread."""

    def reset(self) -> None:
        """Forgets every prompt."""

    def close(self) -> None:
        """Frees memory."""
