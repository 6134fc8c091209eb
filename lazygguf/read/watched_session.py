"""A session of which it is noted what the question and the answer attend to.

Owns which of a session's numbers tell what an answer leaned on. Where a token stands in a text is ``text``'s.

A session with pruning points scores its tokens anyway, by the question and by each token of the answer: the scores of
its last point are taken as they are. A session without one records the attention at one such point's layers and heads,
of the question alone: to record it in each decode step costs too much where nobody asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, NamedTuple, Optional

import numpy as np
import numpy.typing as npt

from .._ffi import AttentionRequest, ProgressCallback
from ..schedule.keep_schedule import DEFAULT_QUERY, MAX_QUERY, KeepSchedule, PruningPoint
from .prompt import QuerySpan
from .scores import PromptAttention, Scores
from .session import Session


class Attended(NamedTuple):
    """What was attended to, each (n_tokens,) of the tokens that were there; None where nobody asked yet."""

    question: Optional[Scores] = None
    answer: Optional[Scores] = None

    def cut(self, n_tokens: int) -> Attended:
        """The same of the first tokens."""
        return Attended(*(part if part is None else part[:n_tokens] for part in self))


_MAX_RECORDED = 1 << 24  # numbers of attention in one record, 64 MiB; of a longer question fewer tokens ask
_NO_MARK = (-1, Attended())


class WatchedSession:
    """A session of which it is noted what the question and the answer attend to while it reads.

    It does what the session does, with the same results.

    Args:
        session: the session.
        point: whose layers, heads and pooling count.
        n_head: attention heads of the model.
        segment: the session's pruning point that this is, by the number of the segment that it ends; None: the session
            has none inside the model, and records attention.
    """

    def __init__(self, session: Session, point: PruningPoint, n_head: int, segment: Optional[int] = None) -> None:
        self._session = session
        self._point = point
        self._segment = segment
        heads = point.layer_heads
        layers = range(point.il - point.n_layers + 1, point.il + 1) if heads is None else [il for il, _ in heads]
        self._request = AttentionRequest(tuple(sorted(set(layers))), by_head=heads is not None, by_query=True)
        self._n_rows = len(self._request.layers) * (1 if heads is None else n_head)  # recorded for each asking token
        self._attended = Attended()
        self._n_prompt = 0
        self._marked = _NO_MARK

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)  # all that is not said here

    @classmethod
    def of(
        cls,
        session: Session,
        schedule: Optional[KeepSchedule],
        usual: Optional[KeepSchedule],
        n_layer: int,
        n_head: int,
    ) -> WatchedSession:
        """Watches a session at the last pruning point.

        Args:
            session: the session.
            schedule: its schedule; None is dense.
            usual: what ``keep="auto"`` would be without a draft: it says which layer and heads tell what matters where
                ``schedule`` has no point inside the model.
            n_layer: layers of the model.
            n_head: its attention heads.
        """
        inside = _inside(schedule)
        if inside:
            return cls(session, inside[-1], n_head, len(inside) - 1)
        return cls(session, (_inside(usual) or [PruningPoint(n_layer - 1, 1.0, query_max=True)])[-1], n_head)

    def eval(
        self,
        ids: Any,
        query_span: QuerySpan = None,
        progress: Optional[ProgressCallback] = None,
        scores: Optional[Scores] = None,
        attention: Any = None,
        protect: Sequence[int] = (),
    ) -> Any:
        """As ``Session.eval``; ``attention`` must be None."""
        n_past = self._session.n_tokens
        n_tokens = n_past + len(ids)
        is_question = len(ids) > 1 or query_span is not None
        asking = _asking(query_span, n_past, n_tokens)
        found: Optional[Scores] = None
        if self._segment is not None:
            self._session.eval(ids, query_span, progress, scores, protect=protect)
            found = self._session.asked_by(self._segment, asking)
            if found is None:  # the question does not ask there, only the newest tokens do
                found = self._session.asked_by(self._segment, (n_past, n_tokens))
        elif is_question:
            n_most = max(1, _MAX_RECORDED // (self._n_rows * n_tokens))
            asking = max(asking[0], asking[1] - n_most), asking[1]
            recorded = self._session.eval(ids, asking, progress, scores, self._request, protect=protect)
            found = self._combined(recorded)
        else:
            self._session.eval(ids, query_span, progress, scores, protect=protect)
        question, answer = self._attended
        if is_question:
            self._attended, self._n_prompt, self._marked = Attended(found), n_tokens, _NO_MARK
        elif found is not None:
            self._attended = Attended(
                question, found if answer is None else np.maximum(found, _padded(answer, n_tokens))
            )

    def trim(self, n_tokens: int) -> None:
        """As ``Session.trim``."""
        self._session.trim(n_tokens)
        n_marked, attended = self._marked
        if n_tokens == n_marked:
            self._attended, self._n_prompt = attended, n_marked
            return
        self._attended, self._n_prompt = self._attended.cut(n_tokens), min(self._n_prompt, n_tokens)
        if n_tokens < n_marked:
            self._marked = _NO_MARK

    def mark(self) -> None:
        """As ``Session.mark``: a prompt has been read."""
        self._session.mark()
        self._n_prompt = self._session.n_tokens
        if self._attended.question is None and self._segment is not None:  # a saved session may remember who asked
            asked = self._session.asked_by(self._segment, (0, self._n_prompt))
            self._attended = Attended(asked, self._attended.answer)
        self._marked = self._n_prompt, self._attended

    def reset(self) -> None:
        """As ``Session.reset``."""
        self._session.reset()
        self._attended, self._n_prompt, self._marked = Attended(), 0, _NO_MARK

    def load(self, n_bytes: int, read_into: Callable[[memoryview], Any]) -> None:
        """As ``Session.load``. What the loaded tokens attended to is not in a saved session."""
        self._session.load(n_bytes, read_into)
        self._attended, self._n_prompt, self._marked = Attended(), 0, _NO_MARK

    def attended(self) -> Optional[PromptAttention]:
        """How much each token of the newest prompt was attended to; None where nothing was read."""
        parts = [_padded(part[: self._n_prompt], self._n_prompt) for part in self._attended if part is not None]
        return PromptAttention(np.maximum.reduce(parts), self._point.pool) if parts else None

    def _combined(self, attention: npt.NDArray[np.float32]) -> Scores:
        """Recorded attention as the point scores: over the asking tokens, head by head, and the best head's."""
        heads = self._point.layer_heads
        if heads is None:  # (n_layers, n_query, n_tokens)
            rows = attention
        else:  # (n_layers, n_query, n_head, n_tokens)
            rows = np.stack([attention[self._request.layers.index(il), :, head] for il, head in heads])
        by_head = rows.max(axis=1) if self._point.query_max else rows.mean(axis=1)
        return np.asarray(by_head.max(axis=0), np.float32)


def _inside(schedule: Optional[KeepSchedule]) -> list[PruningPoint]:
    """The pruning points inside a model, as its session numbers them."""
    return [] if schedule is None else [point for point in schedule.points if point.il >= 0]


def _asking(span: QuerySpan, n_past: int, n_tokens: int) -> tuple[int, int]:
    """The new tokens that ask, positions [begin, end): the question's, or the last ones."""
    if span is None or span[1] <= n_past:
        span = n_tokens - DEFAULT_QUERY, n_tokens
    begin, end = span
    return max(begin, n_past, end - MAX_QUERY), end


def _padded(scores: Scores, n_tokens: int) -> Scores:
    return np.pad(scores, (0, n_tokens - len(scores)))
