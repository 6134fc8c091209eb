"""Random keep schedules and uses of a session, for hypothesis; and what holds after every step.

Owns the strategies and the invariants. Who is compared with whom is the tests' business.
"""

from __future__ import annotations

from itertools import chain
from typing import Any, Optional

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
from tiny_gguf import TinyConfig

from lazygguf import KeepSchedule, PruningPoint
from lazygguf._ffi import NativeSession

CONFIG = TinyConfig(n_layer=5, n_embd=32, n_head=4, n_head_kv=2, n_ff=32, n_vocab=270, seed=3)
N_CTX = 256
# The NumPy reference and ggml sum in another order: a score gap below this may fall either way.
SURE = 1e-5

Op = tuple[Any, ...]


class Failed(Exception):  # noqa: N818 (what a callback raises)
    """Raised by a progress callback to end a step."""


_N_QUERY: st.SearchStrategy[int | str] = st.sampled_from([1, 1, 2, 5, 8, "question"])


@st.composite
def schedules(draw: st.DrawFn) -> KeepSchedule:
    """One to three pruning points with any settings."""
    ils = sorted(draw(st.sets(st.integers(0, CONFIG.n_layer - 2), min_size=1, max_size=3)))
    keeps = sorted(draw(st.lists(st.sampled_from([1.0, 0.8, 0.5, 0.3, 0.1, 0.02]), min_size=3, max_size=3)))[::-1]
    points = [
        PruningPoint(
            il,
            keep,
            heads=draw(st.none() | st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True).map(tuple)),
            n_query=draw(_N_QUERY),
            pool=draw(st.sampled_from([1, 1, 3, 7])),
        )
        for il, keep in zip(ils, keeps)
    ]
    if draw(st.integers(0, 3)) == 0:
        keep = draw(st.sampled_from([share for share in (1.0, 0.9, 0.5, 0.3) if share >= points[0].keep] or [1.0]))
        pool, mass = draw(st.sampled_from([1, 5])), draw(st.sampled_from([1.0, 1.0, 0.6]))
        points = [PruningPoint(-1, keep, pool=pool, mass=mass), *points]
    max_revive = draw(st.sampled_from([-1, 0, 1, 2, 5]))
    return KeepSchedule(
        tuple(points),
        n_sink=draw(st.sampled_from([0, 0, 1, 4])),
        min_prompt=draw(st.sampled_from([0, 0, 0, 30])),
        max_revive=max_revive,
        revive_margin=draw(st.sampled_from([0.0, 0.0, 0.5, 2.0])),
        mean_revive=0 if max_revive < 0 else draw(st.sampled_from([0, 0, 0.7, 3])),
    )


_READ = st.tuples(st.just("eval"), st.integers(2, 40), st.sampled_from([None, None, 0.0, 0.5]))
_DECODE = st.integers(1, 6).map(lambda n: [("eval", 1, None)] * n)  # an answer
_FAIL = st.tuples(st.just("fail"), st.integers(1, 30), st.integers(1, 6))
_TRIM = st.tuples(st.just("trim"), st.floats(0.0, 1.0))


def uses(max_size: int = 8) -> st.SearchStrategy[list[Op]]:
    """A prompt, then: ("eval", n, where the question begins), ("fail", n, at which callback), ("trim", share), ..."""
    one = st.one_of(_READ, _READ, _FAIL, _TRIM, st.just(("reset",))).map(lambda op: [op])
    runs = st.lists(st.one_of(_DECODE, _DECODE, one), min_size=2, max_size=max_size)
    return st.builds(lambda first, more: [first, *chain.from_iterable(more)], _READ, runs)


def tokens(n: int, seed: int) -> list[int]:
    """The ids that the op at index ``seed`` reads."""
    return [int(token) for token in np.random.default_rng(seed).integers(3, CONFIG.n_vocab, n)]


def query_span(n_past: int, n: int, begin: Optional[float]) -> Optional[tuple[int, int]]:
    """The positions that ask, from a share of the new ones on; at most 6."""
    if begin is None:
        return None
    first = n_past + int(begin * n)
    return first, min(first + 6, n_past + n)


def outside_scores(schedule: Optional[KeepSchedule], n: int, seed: int) -> Optional[npt.NDArray[np.float32]]:
    """Scores for the schedule's point before layer 0; for some seeds some of them NaN or inf, or none at all."""
    if schedule is None or schedule.entry is None or seed % 4 == 3:
        return None
    rng = np.random.default_rng(seed)
    scores = rng.random(n).astype(np.float32)
    scores[rng.random(n) < 0.2 * (seed % 3)] = np.nan
    scores[rng.random(n) < 0.1 * (seed % 2)] = np.inf
    return scores


def fail_eval(session: NativeSession, ids: list[int], n_calls: int) -> bool:
    """A step whose n-th progress callback raises; False where there are fewer and the step succeeds."""
    calls = iter(range(1, n_calls))

    def progress(n_done: int, n_total: int) -> None:
        if next(calls, None) is None:
            raise Failed

    try:
        session.eval(ids, progress=progress)
    except Failed:
        return True
    return False


def is_late(
    schedule: KeepSchedule,
    n_new: int,
    goes_on: bool,
    span: Optional[tuple[int, int]],
    scores: Optional[npt.NDArray[np.float32]],
) -> bool:
    """Whether a step goes by what the one before it chose; goes_on: there is one, and no trim or reset since."""
    has_points = any(point.il >= 0 for point in schedule.points)
    return has_points and n_new == 1 and goes_on and span is None and scores is None


def cached(session: NativeSession) -> list[set[int]]:
    """By segment, the positions with K/V rows."""
    return [set(session.cached(s).tolist()) for s in range(len(session.stats().n_layers))]


def assert_step_holds(
    session: NativeSession,
    schedule: KeepSchedule,
    before: list[set[int]],
    n_new: int,
    *,
    n_question: int,
    scores: Optional[npt.NDArray[np.float32]],
    late: bool,
) -> None:
    """What is true after every successful step, whatever the schedule.

    Args:
        session: the session after the step.
        schedule: its schedule.
        before: ``cached`` before the step.
        n_new: tokens that it read.
        n_question: tokens that may have asked at a "question" point, at most.
        scores: those given to it.
        late: whether it went by what the step before had chosen.
    """
    stats, after, n_tokens = session.stats(), cached(session), session.n_tokens
    live = [session.live(s).tolist() for s in range(len(after))]
    is_dense = n_tokens < schedule.min_prompt
    if is_dense or schedule.entry is None:
        assert live[0] == list(range(n_tokens))
    points = schedule.points if schedule.entry is None else schedule.points[1:]
    for s, positions in enumerate(live):
        assert positions == sorted(set(positions)) and positions[-1] == n_tokens - 1
        assert set(positions) <= after[s]
        assert before[s] <= after[s]
        # every row is computed once: what is computed now was not there
        assert stats.n_computed[s] == len(after[s] - before[s])
        assert stats.n_live[s] == len(positions)
    for earlier, later in zip(live, live[1:]):
        assert late or set(later) <= set(earlier)
    for earlier_rows, later_rows in zip(after, after[1:]):
        assert later_rows <= earlier_rows  # a row begins with the aux row of the segment before
    if schedule.max_revive >= 0 and n_new == 1 and n_tokens > 1 and not is_dense:
        n_entered = len(set(live[0]) - before[0]) - 1  # read by their scores, without limit
        assert stats.n_revived <= max(schedule.max_revive, n_entered)
    windows = [p.n_query for p in points if isinstance(p.n_query, int)]
    n_protected = schedule.n_sink + max([*windows, 0]) + n_question + 1
    if scores is not None and schedule.entry is not None and not is_dense:
        n_stay = int((~np.isfinite(scores)).sum())
        assert set(np.flatnonzero(np.isposinf(scores)).tolist()) <= set(live[0])
        assert len(live[0]) <= max(int(schedule.entry.keep * n_tokens + 1e-6), n_protected + n_stay)
    # beside what was chosen before it, a late step's own token lives, and what comes back at earlier points
    n_chosen_of, n_beside = (n_tokens - 1, 1 + stats.n_revived) if late else (n_tokens, 0)
    for point, positions in zip(points, live[1:]):
        if n_chosen_of >= schedule.min_prompt and point.keep < 1.0:
            assert len(positions) - n_beside <= max(int(point.keep * n_chosen_of + 1e-6), n_protected)
