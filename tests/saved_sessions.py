"""Sessions put to random uses, saved, and restored into others; what shows that two hold the same.

Owns the uses of a session that can be saved at any point: those of ``session_ops``, marks and gaps.
"""

from __future__ import annotations

import io
from typing import Any, Optional

import hypothesis.strategies as st
import numpy as np
from session_ops import CONFIG, N_CTX, Op, fail_eval, outside_scores, query_span, schedules, tokens, uses

from lazygguf import KeepSchedule
from lazygguf._ffi import NativeModel, NativeSession

__all__ = ["CONFIG", "load_bytes", "new_session", "saved_bytes", "saved_uses", "schedules", "seen", "use"]

_SAVED_OP = st.one_of(
    st.just(("mark",)),
    st.just(("back",)),
    st.tuples(st.just("forget"), st.floats(0.0, 1.0)),
)


def saved_uses(max_size: int = 6) -> st.SearchStrategy[list[Op]]:
    """A prompt and what follows; a mark is often set after it, and gone back to."""

    def with_marks(ops: list[Op], places: list[tuple[float, Op]]) -> list[Op]:
        for share, op in places:
            ops.insert(1 + int(share * len(ops)), op)
        return ops

    places = st.lists(st.tuples(st.floats(0.0, 1.0), _SAVED_OP), max_size=4)
    return st.builds(with_marks, uses(max_size), places)


def use(session: NativeSession, schedule: Optional[KeepSchedule], op: Op, seed: int, marked: list[int]) -> None:
    """Does one thing to a session; ``marked`` holds where its mark was set last."""
    name, *args = op
    n_past = session.n_tokens
    if name == "reset":
        session.reset()
    elif name == "trim":
        session.trim(int(args[0] * n_past))
    elif name == "mark":
        session.mark()
        marked[:] = [n_past]
    elif name == "back":
        session.trim(min([n_past, *marked]))
    elif name == "forget":
        if schedule is not None and schedule.entry is not None and n_past > 2:
            session.forget(np.arange(int(args[0] * (n_past - 2)), n_past - 1, 3))
    elif n_past + args[0] <= N_CTX:
        ids = tokens(args[0], seed)
        if name == "fail":
            fail_eval(session, ids, args[1])
        else:
            span, scores = query_span(n_past, len(ids), args[1]), outside_scores(schedule, n_past + len(ids), seed)
            session.eval(ids, span, scores=scores)


def seen(session: NativeSession) -> list[Any]:
    """All that a caller can see, bit for bit, but for memory."""
    logits, stats = session.logits(), session.stats()
    found: list[Any] = [session.n_tokens, session.tokens().tolist(), None if logits is None else logits.tobytes()]
    for s in range(len(stats.n_layers)):
        scores = session.scores(s)
        found += [session.live(s).tolist(), session.cached(s).tolist(), None if scores is None else scores.tobytes()]
    return [*found, stats._replace(kv_bytes=0, aux_bytes=0)]


def saved_bytes(session: NativeSession) -> bytes:
    out = bytearray()
    session.save(out.extend)
    assert len(out) == session.saved_bytes()
    return bytes(out)


def load_bytes(session: NativeSession, data: bytes) -> None:
    file = io.BytesIO(data)

    def read_into(out: memoryview) -> None:
        assert file.readinto(out) == len(out), "a session asks for more bytes than there are"

    session.load(len(data), read_into)


def new_session(model: NativeModel, schedule: Optional[KeepSchedule], kv_type: str = "f16") -> NativeSession:
    return NativeSession(model, N_CTX, 16, type_k=kv_type, type_v=kv_type, schedule=schedule)
