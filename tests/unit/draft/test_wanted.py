"""What a draft's scores want: how many tokens, and no fragments."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazygguf import PruningPoint
from lazygguf._ffi import keep_count
from lazygguf.draft.rules import n_wanted, without_fragments

FIFTH = PruningPoint(-1, 0.2)


def kept(scores: npt.NDArray[np.float32], point: PruningPoint) -> npt.NDArray[np.bool_]:
    out = np.isposinf(scores)
    out[np.argsort(-scores, kind="stable")[: n_wanted(scores, point)]] = True
    return out


def bumps(places: dict[int, tuple[int, float]], n_tokens: int = 1000) -> npt.NDArray[np.float32]:
    """Low noise, and by place a run of so many tokens with that score."""
    scores = np.random.default_rng(0).uniform(0.1, 0.2, n_tokens).astype(np.float32)
    for begin, (length, score) in places.items():
        scores[begin : begin + length] = score
    return scores


def test_a_fragment_gives_its_place_to_whole_runs() -> None:
    scores = bumps({100: (80, 0.9), 400: (5, 0.95), 600: (90, 0.5), 800: (30, 0.4)})
    assert kept(scores, FIFTH)[400:405].all()
    changed = without_fragments(scores, FIFTH)
    chosen = kept(changed, FIFTH)
    assert chosen.sum() == 200
    assert chosen[100:180].all() and chosen[600:690].all() and chosen[800:830].all()
    assert not chosen[400:405].any()


def test_what_is_always_read_and_what_stands_beside_it_is_no_fragment() -> None:
    scores = bumps({100: (150, 0.9), 500: (3, 0.8), 503: (4, np.inf), 700: (5, np.inf)})
    changed = without_fragments(scores, FIFTH)
    assert kept(changed, FIFTH)[500:507].all() and kept(changed, FIFTH)[700:705].all()
    assert np.array_equal(changed[500:507], scores[500:507])


@pytest.mark.parametrize("point", [None, PruningPoint(-1, 1.0), PruningPoint(-1, 0.01)])
def test_scores_stay_where_all_go_on_or_too_few_for_one_run(point: PruningPoint | None) -> None:
    scores = bumps({10: (5, 0.9)})
    assert np.array_equal(without_fragments(scores, point), scores)


@given(st.integers(0, 1000), st.integers(16, 400), st.sampled_from([0.05, 0.2, 0.6]), st.sampled_from([1.0, 0.6]))
def test_no_score_rises_and_as_many_go_on_at_most(seed: int, n_tokens: int, keep: float, mass: float) -> None:
    rng = np.random.default_rng(seed)
    scores = np.convolve(rng.random(n_tokens) ** 8, np.ones(9) / 9, "same").astype(np.float32)
    scores[rng.random(n_tokens) < 0.02] = np.inf
    point = PruningPoint(-1, keep, mass=mass)
    changed = without_fragments(scores, point)
    assert (changed <= scores).all() and np.array_equal(np.isposinf(changed), np.isposinf(scores))
    assert n_wanted(changed, point) <= keep_count(keep, n_tokens)
