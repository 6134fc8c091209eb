"""What is read again because a gap before it is read now."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from tiny_gguf import TinyConfig

from lazygguf import KeepSchedule
from lazygguf._ffi import NativeModel, NativeSession
from lazygguf.draft.rules import stale_tokens

REACH = 32


def slow(wanted: list[bool], is_read: list[bool]) -> list[int]:
    """The definition: walk back from each token to one that is fresh, over wanted tokens only."""
    out = []
    for pos in range(len(wanted)):
        back = pos
        while wanted[back] and is_read[back] and back > 0 and pos - back < REACH:
            back -= 1
        if wanted[pos] and is_read[pos] and wanted[back] and not is_read[back]:
            out.append(pos)
    return out


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=90))
def test_stale_is_what_follows_a_fresh_token_in_its_run(tokens: list[tuple[bool, bool]]) -> None:
    wanted, is_read = [token[0] for token in tokens], [token[1] for token in tokens]
    assert stale_tokens(np.array(wanted, np.bool_), np.array(is_read, np.bool_)).tolist() == slow(wanted, is_read)


def test_a_long_run_is_read_again_up_to_its_reach() -> None:
    wanted, is_read = np.ones(100, np.bool_), np.ones(100, np.bool_)
    is_read[10] = False
    assert stale_tokens(wanted, is_read).tolist() == list(range(11, 11 + REACH))


@pytest.fixture
def session(tiny_model: object) -> NativeSession:
    path = tiny_model(TinyConfig())[0]  # type: ignore[operator]
    keep = KeepSchedule.parse("-1:0.5,2:0.3", min_prompt=0, n_sink=2)
    return NativeSession(NativeModel(path), n_ctx=256, type_k="f32", type_v="f32", schedule=keep)


def scores(read: set[int], n: int) -> np.ndarray:
    return np.array([np.inf if pos in read else 0.0 for pos in range(n)], np.float32)


def test_forgotten_tokens_wait_unread_and_are_read_as_if_for_the_first_time(session: NativeSession) -> None:
    ids, part, whole = list(range(3, 83)), set(range(20, 60)), set(range(10, 60))
    session.eval(ids, scores=scores(part, 80))
    had = set(session.cached(0).tolist())
    session.forget(sorted(part))
    assert set(session.cached(0).tolist()) == had - part
    assert not set(session.cached(1).tolist()) & part
    assert session.n_tokens == 80 and session.logits() is not None
    session.eval([5], scores=scores(whole, 81))
    assert whole <= set(session.live(0).tolist())
    assert session.stats().n_computed[0] == len(whole - (had - part)) + 1


def test_a_token_read_again_knows_what_stands_before_it(tiny_model: object) -> None:
    path = tiny_model(TinyConfig())[0]  # type: ignore[operator]
    only_wanted = KeepSchedule.parse("-1:0.001", min_prompt=0, n_sink=2)
    session = NativeSession(NativeModel(path), n_ctx=256, type_k="f32", type_v="f32", schedule=only_wanted)
    ids, part, whole = list(range(3, 83)), set(range(20, 40)), set(range(10, 40))
    session.eval(ids, (79, 80), scores=scores(whole, 80))
    at_once, live = session.logits(), session.live(0).tolist()
    results = []
    for forgets in (True, False):
        session.reset()
        session.eval(ids[:60], (59, 60), scores=scores(part, 60))
        session.forget(sorted(part) if forgets else [])
        session.eval(ids[60:], (79, 80), scores=scores(whole, 80))
        assert session.live(0).tolist() == live
        logits = session.logits()
        assert logits is not None and at_once is not None
        results.append(np.abs(logits - at_once).max())
    assert results[0] < 1e-4 < 1e-2 < results[1]


@pytest.mark.parametrize("pos", [-1, 79, 80])
def test_only_old_tokens_before_the_newest_are_forgotten(session: NativeSession, pos: int) -> None:
    session.eval(list(range(3, 83)))
    with pytest.raises(ValueError, match=rf"position {pos} is to be forgotten, expected a value in \[0, 78\]"):
        session.forget([pos])
    session.forget([])


def test_without_a_point_before_layer_0_nothing_can_be_forgotten(tiny_model: object) -> None:
    path = tiny_model(TinyConfig())[0]  # type: ignore[operator]
    session = NativeSession(NativeModel(path), n_ctx=64)
    session.eval([3, 4, 5])
    with pytest.raises(ValueError, match="can be forgotten only where they can wait"):
        session.forget([0])
