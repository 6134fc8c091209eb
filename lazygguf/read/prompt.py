"""A prompt as a session reads it: token ids, and what is known of their parts.

Owns the one value that goes from a chat template, through a context and a draft, to a session.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Optional

import numpy as np
import numpy.typing as npt

QuerySpan = Optional[tuple[int, int]]


@dataclass(frozen=True)
class Prompt:
    """Token ids, and which of them are special. Positions count from the context's begin.

    Attributes:
        ids: token ids.
        query_span: positions [begin, end) of the question, None where it is not known.
        protect: positions that are never pruned, ascending.
        recent: positions that are read whatever a draft thinks of them, ascending.
    """

    ids: Sequence[int]
    query_span: QuerySpan = None
    protect: Sequence[int] = ()
    recent: Sequence[int] = ()

    def after(self, n_past: int) -> Prompt:
        """The part that is left to read where the first ``n_past`` tokens are in the context already.

        Only tokens that are read can ask: of a question that is there already nothing is left.
        """
        span = self.query_span
        if span is not None:
            span = (max(span[0], n_past), span[1]) if span[1] > n_past else None
        return replace(self, ids=self.ids[n_past:], query_span=span)


@dataclass(frozen=True)
class Reading:
    """What is about to be read.

    Attributes:
        prompt: the whole context, old tokens and new ones.
        n_past: old ones.
    """

    prompt: Prompt
    n_past: int

    @property
    def n_tokens(self) -> int:
        """Tokens in the context once all are read."""
        return len(self.prompt.ids)

    @property
    def new(self) -> npt.NDArray[np.int32]:
        """The tokens to read."""
        return np.asarray(self.prompt.ids[self.n_past :], np.int32)
