"""What a context works with: a native session, a reader that chooses what is read, progress callbacks.

Owns the interfaces only; ``context.py`` uses them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional, Protocol

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
    def reset(self) -> None: ...
    def trim(self, n_tokens: int) -> None: ...
    def mark(self) -> None: ...
    def cached(self, segment: int) -> npt.NDArray[np.int32]: ...
    def forget(self, positions: npt.ArrayLike) -> None: ...
    def cancel(self) -> None: ...
    def stats(self) -> Any: ...
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


class PromptReader(Protocol):
    """Decides what of a prompt a session reads (``draft.reader.DraftReader``)."""

    def read(self, session: Session, reading: Reading, progress: Progress) -> Stats:
        """Reads; on any failure the session holds the tokens of before, some of which may wait unread again."""

    def cancel(self) -> None:
        """Stops the reading under way, from any thread."""

    def reset(self) -> None:
        """Forgets every prompt."""

    def close(self) -> None:
        """Frees memory."""
