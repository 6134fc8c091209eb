"""Sessions of any use: chunks do not matter, failures leave no trace, and what must hold after a step holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from reference import nmse
from session_ops import (
    CONFIG,
    N_CTX,
    Op,
    assert_step_holds,
    cached,
    fail_eval,
    is_late,
    outside_scores,
    query_span,
    schedules,
    tokens,
    uses,
)
from tiny_gguf import TinyConfig

from lazygguf import KeepSchedule
from lazygguf._ffi import NativeModel, NativeSession

# Chunks of another size take other kernels, which sum in another order. Measured worst 3e-12 with F32 K/V.
CHUNK_NMSE = 1e-9
# ggml's flash attention over F16 V also sums in F16 below 64 rows. Measured worst 2e-4 (heads of 8).
CHUNK_NMSE_F16 = 1e-3

QUICK = settings(max_examples=150, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def model(tiny_model: Callable[[TinyConfig], tuple[Path, Any]]) -> NativeModel:
    return NativeModel(tiny_model(CONFIG)[0])


def new_session(
    model: NativeModel, schedule: Optional[KeepSchedule] = None, n_ubatch: int = 512, kv_type: str = "f32"
) -> NativeSession:
    return NativeSession(model, N_CTX, n_ubatch, type_k=kv_type, type_v=kv_type, schedule=schedule)


def logits_of(session: NativeSession) -> np.ndarray:
    logits = session.logits()
    assert logits is not None
    return logits


def seen(session: NativeSession) -> tuple[Any, ...]:
    """All that a caller can see, but for memory."""
    logits, stats = session.logits(), session.stats()
    segments = range(len(stats.n_layers))
    rows = [(session.live(s).tolist(), session.cached(s).tolist()) for s in segments]
    return session.n_tokens, None if logits is None else logits.tobytes(), rows, stats.n_computed, stats.n_revived


@QUICK
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) <= N_CTX),
    n_ubatch=st.sampled_from([1, 2, 5, 16, 64]),
    kv_type=st.sampled_from(["f32", "f16"]),
    seed=st.integers(0, 2**16),
)
def test_dense_logits_do_not_depend_on_the_chunks(
    model: NativeModel, sizes: list[int], n_ubatch: int, kv_type: str, seed: int
) -> None:
    ids = tokens(sum(sizes), seed)
    whole, chunked = new_session(model, kv_type=kv_type), new_session(model, n_ubatch=n_ubatch, kv_type=kv_type)
    whole.eval(ids)
    begin = 0
    for size in sizes:
        chunked.eval(ids[begin : begin + size])
        begin += size
    limit = CHUNK_NMSE if kv_type == "f32" else CHUNK_NMSE_F16
    assert nmse(logits_of(chunked), logits_of(whole)) <= limit


@QUICK
@given(cut=st.integers(0, 99), seed=st.integers(0, 2**16), more=st.integers(1, 40))
def test_a_dense_context_that_was_cut_goes_on_like_one_that_never_read_further(
    model: NativeModel, cut: int, seed: int, more: int
) -> None:
    ids, other = tokens(100, seed), tokens(more, seed + 1)
    trimmed, fresh = new_session(model), new_session(model)
    trimmed.eval(ids)
    trimmed.trim(cut)
    trimmed.eval(other)
    fresh.eval([*ids[:cut], *other])
    assert nmse(logits_of(trimmed), logits_of(fresh)) <= CHUNK_NMSE


@QUICK
@given(schedule=st.none() | schedules(), ops=uses(), n_ubatch=st.sampled_from([1, 3, 16, 64]))
def test_steps_that_fail_leave_no_trace(
    model: NativeModel, schedule: Optional[KeepSchedule], ops: list[Op], n_ubatch: int
) -> None:
    """The same use with and without its failing steps gives the same bits."""
    failing, clean = (new_session(model, schedule, n_ubatch, "f16") for _ in range(2))
    for seed, (name, *args) in enumerate(ops):
        if name == "fail":
            ids = tokens(args[0], seed)[: N_CTX - failing.n_tokens]
            if ids and not fail_eval(failing, ids, args[1]):
                clean.eval(ids)
        elif name == "eval":
            ids = tokens(args[0], seed)[: N_CTX - failing.n_tokens]
            span = query_span(failing.n_tokens, len(ids), args[1])
            scores = outside_scores(schedule, failing.n_tokens + len(ids), seed)
            for session in (failing, clean) if ids else ():
                session.eval(ids, span, scores=scores)
        else:
            for session in (failing, clean):
                session.trim(int(args[0] * session.n_tokens)) if name == "trim" else session.reset()
        assert seen(failing) == seen(clean)


@QUICK
@given(schedule=schedules(), ops=uses(max_size=12), n_ubatch=st.sampled_from([1, 7, 64]))
def test_what_must_hold_after_a_step_holds(
    model: NativeModel, schedule: KeepSchedule, ops: list[Op], n_ubatch: int
) -> None:
    """The invariants of ``assert_step_holds``, also where scores are too close for the reference."""
    session, goes_on = new_session(model, schedule, n_ubatch, "f16"), False
    for seed, (name, *args) in enumerate(ops):
        if name in ("eval", "fail"):
            ids = tokens(args[0], seed)[: N_CTX - session.n_tokens]
            if not ids:
                continue
            before, n_past = cached(session), session.n_tokens
            if name == "fail" and fail_eval(session, ids, args[1]):
                assert cached(session) == before and session.n_tokens == n_past
                continue
            scores, span = None, None
            if name == "eval":
                scores = outside_scores(schedule, n_past + len(ids), seed)
                span = query_span(n_past, len(ids), args[1])
                session.eval(ids, span, scores=scores)
            late = is_late(schedule, len(ids), goes_on, span, scores)
            assert_step_holds(session, schedule, before, len(ids), n_question=24, scores=scores, late=late)
            stats = session.stats()
            n_ubatches = [-(-n_rows // n_ubatch) for n_rows in stats.n_computed]
            assert stats.n_submissions == (1 if late and max(n_ubatches) == 1 else sum(n_ubatches))
            assert stats.n_waits == stats.n_submissions
            goes_on = True
        elif name == "trim":
            n = int(args[0] * session.n_tokens)
            kept = [{pos for pos in rows if pos < n} for rows in cached(session)]
            goes_on = goes_on and n == session.n_tokens
            session.trim(n)
            assert cached(session) == kept and session.n_tokens == n
        else:
            goes_on = False
            session.reset()
            assert not any(cached(session)) and session.stats().kv_bytes == 0
