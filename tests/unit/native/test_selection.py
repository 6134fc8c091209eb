"""The counts of a pruning point at the C boundary: what a session keeps, and which numbers are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tiny_gguf import TinyConfig

from lazygguf import KeepSchedule, PruningPoint
from lazygguf._ffi import NativeModel, NativeSession
from lazygguf._ffi.library import check, ffi, lib

CONFIG = TinyConfig(n_layer=2, n_embd=32, n_head=2, n_head_kv=1, n_ff=32, n_vocab=270)
N = 60
NEWEST = (N - 1, N)


def count_kept(scores: npt.ArrayLike, keep: float, keep_min: float, mass: float) -> int:
    numbers, out = np.ascontiguousarray(scores, dtype=np.float32), ffi.new("int32_t *")
    pointer = ffi.cast("const float *", ffi.from_buffer(numbers))
    check(lib.lazy_count_kept(out, pointer, numbers.size, keep, keep_min, mass))
    return int(out[0])


def keep_count(keep: float, n_tokens: int) -> int:
    out = ffi.new("int32_t *")
    check(lib.lazy_keep_count(out, keep, n_tokens))
    return int(out[0])


@pytest.fixture(scope="module")
def model(tiny_model: Callable[[TinyConfig], tuple[Path, Any]]) -> NativeModel:
    return NativeModel(tiny_model(CONFIG)[0])


@pytest.mark.parametrize(("keep", "keep_min"), [(1.0, 0.0), (0.5, 0.0), (0.35, 0.1), (0.29, 0.29), (0.05, 0.0)])
@pytest.mark.parametrize("mass", [1.0, 0.9, 0.5, 0.1])
def test_the_count_is_what_a_session_lets_in(model: NativeModel, keep: float, keep_min: float, mass: float) -> None:
    schedule = KeepSchedule((PruningPoint(-1, keep, mass=mass, keep_min=keep_min),), n_sink=0, min_prompt=0)
    rng = np.random.default_rng(5)
    ids = rng.integers(3, CONFIG.n_vocab, N).tolist()
    for _ in range(4):
        scores = rng.random(N).astype(np.float32) ** 3
        scores[rng.random(N) < 0.2] = np.inf
        scores[N - 1] = np.inf  # the newest token is never pruned
        session = NativeSession(model, N, schedule=schedule)
        session.eval(ids, query_span=NEWEST, scores=scores)
        n_live = len(session.live(0))
        assert n_live == max(count_kept(scores, keep, keep_min, mass), int(np.isposinf(scores).sum()))


def test_nan_is_a_token_of_the_context_that_does_not_go_on() -> None:
    scores = [0.5, np.nan, 0.25, np.nan, 0.25, np.nan, 0.0, 0.0]
    assert count_kept(scores, 0.5, 0.0, 1.0) == 4
    assert count_kept(scores, 0.5, 0.0, 0.75) == 2
    assert count_kept(scores, 0.5, 0.5, 0.75) == 4


def test_shares_of_a_whole_number_of_tokens_are_whole() -> None:
    assert [keep_count(0.29, 100), keep_count(0.35, 260), keep_count(0.3, 99)] == [29, 91, 29]
    assert [keep_count(keep, 10) for keep in (0.0, 1.0)] == [0, 10]


def test_no_scores_count_no_token() -> None:
    assert count_kept([], 0.5, 0.1, 0.9) == 0


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ((1.5, 0.0, 1.0), "keep is 1.5, expected a value in [0, 1]"),
        ((float("nan"), 0.0, 1.0), "keep is nan, expected a value in [0, 1]"),
        ((0.5, -1.0, 1.0), "keep_min is -1, expected a value in [0, 1]"),
        ((0.5, 0.6, 1.0), "keep_min is 0.6, expected at most keep, 0.5"),
        ((0.5, 0.0, 2.0), "mass is 2, expected a value in [0, 1]"),
    ],
)
def test_shares_outside_of_0_to_1_are_refused(shares: tuple[float, float, float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        count_kept([0.5, 0.5], *shares)


def test_a_negative_number_of_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="-1 tokens, expected at least 0"):
        keep_count(0.5, -1)
