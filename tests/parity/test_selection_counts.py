"""How many tokens go on: what Python says before a session reads is what the session then keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_gguf import TinyConfig

from lazygguf import KeepSchedule, PruningPoint
from lazygguf._ffi import NativeModel, NativeSession, keep_count
from lazygguf.draft.rules import n_wanted

LENGTHS = range(256, 8193)
PERCENTS = range(1, 101)
# where int(0.35 * n) is one too few
DRIFTING = [n for n in LENGTHS if int(0.35 * n) != 35 * n // 100]


def test_a_share_of_every_length_is_rounded_down_exactly() -> None:
    for percent in PERCENTS:
        found = [keep_count(percent / 100, n) for n in LENGTHS]
        assert found == [percent * n // 100 for n in LENGTHS], percent


@pytest.mark.parametrize("percent", [1, 7, 29, 35, 58, 100])
def test_a_draft_wants_as_many_tokens_as_a_session_may_keep(percent: int) -> None:
    point = PruningPoint(-1, percent / 100)
    for n in [*DRIFTING, *range(256, 8193, 97)]:
        assert n_wanted(np.linspace(0, 1, n, dtype=np.float32), point) == percent * n // 100


def test_floating_point_alone_would_round_some_lengths_down_too_far() -> None:
    assert len(DRIFTING) == 69


@pytest.fixture(scope="module")
def model(tiny_model: Callable[[TinyConfig], tuple[Path, Any]]) -> NativeModel:
    return NativeModel(tiny_model(TinyConfig(seed=3))[0])


@pytest.mark.parametrize(
    "point",
    [
        PruningPoint(-1, 0.35),
        PruningPoint(-1, 0.35, mass=0.7),
        PruningPoint(-1, 0.6, mass=0.2, keep_min=0.35),
        PruningPoint(-1, 0.9, mass=0.999),
    ],
    ids=str,
)
@pytest.mark.parametrize("n_tokens", [DRIFTING[0], DRIFTING[1], 300])
@pytest.mark.parametrize("n_always", [0, 40])
def test_a_session_keeps_as_many_tokens_as_its_scores_want(
    model: NativeModel, point: PruningPoint, n_tokens: int, n_always: int
) -> None:
    rng = np.random.default_rng(n_tokens)
    scores = rng.random(n_tokens).astype(np.float32) ** 3
    scores[-max(n_always, 24) :] = np.inf  # the question asks and is always kept
    scores[: n_always // 2] = np.inf
    schedule = KeepSchedule((point,), n_sink=0, min_prompt=0)
    session = NativeSession(model, n_ctx=512, n_ubatch=256, schedule=schedule)
    session.eval([int(token) for token in rng.integers(3, 300, n_tokens)], scores=scores)
    assert len(session.live(0)) == n_wanted(scores, point)
    session.close()
