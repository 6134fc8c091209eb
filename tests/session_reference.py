"""A session and the NumPy reference put to the same use."""

from __future__ import annotations

import numpy as np
from reference import Reference, nmse
from session_ops import (
    CONFIG,
    N_CTX,
    SURE,
    Op,
    assert_step_holds,
    cached,
    fail_eval,
    outside_scores,
    query_span,
    tokens,
)

from lazygguf import KeepSchedule
from lazygguf._ffi import NativeModel, NativeSession

Opened = tuple[NativeModel, dict[str, np.ndarray]]
# F32 weights and F32 K/V: only the order of sums differs. Measured worst 1e-11.
EXACT = 1e-9


def is_sure(reference: Reference) -> bool:
    """Whether two orders of summation must choose the same; a margin of 0 is a tie, which has a rule."""
    return all(margin == 0.0 or margin > SURE for margin in reference.margins)


def assert_same(session: NativeSession, reference: Reference, expected: np.ndarray) -> None:
    segments = range(len(reference.segments))
    assert [session.live(s).tolist() for s in segments] == reference.live
    assert [session.cached(s).tolist() for s in segments] == reference.cached
    assert session.stats().n_computed == [len(rows) for rows in reference.computed]
    assert session.stats().n_revived == reference.n_revived
    logits = session.logits()
    assert logits is not None
    assert nmse(logits, expected) <= EXACT


def assert_same_use(opened: Opened, schedule: KeepSchedule, ops: list[Op], n_ubatch: int) -> None:
    """After every step both hold the same, up to one whose scores are too close to tell."""
    model, weights = opened
    session = NativeSession(model, N_CTX, n_ubatch, type_k="f32", type_v="f32", schedule=schedule)
    reference = Reference(weights, CONFIG, schedule)
    for seed, (name, *args) in enumerate(ops):
        if name == "reset":
            session.reset()
            reference.reset()
        elif name == "trim":
            n = int(args[0] * session.n_tokens)
            if n < session.n_tokens:  # the reference forgets its step, the session keeps it
                session.trim(n)
                reference.trim(n)
                assert cached(session) == [set(rows) for rows in reference.cached]
        else:
            ids, before, n_past = tokens(args[0], seed), cached(session), session.n_tokens
            if n_past + len(ids) > N_CTX:
                continue
            if name == "fail" and fail_eval(session, ids, args[1]):
                assert cached(session) == before and session.n_tokens == n_past
                continue
            span = query_span(n_past, len(ids), args[1]) if name == "eval" else None
            scores = outside_scores(schedule, n_past + len(ids), seed) if name == "eval" else None
            expected = reference.eval(ids, span, scores)
            if not is_sure(reference):
                return
            if name == "eval":
                session.eval(ids, span, scores=scores)
            assert_same(session, reference, expected)
            n_question, late = len(reference.question), reference.late
            assert_step_holds(session, schedule, before, len(ids), n_question=n_question, scores=scores, late=late)
