"""Prompts read in pieces: every token is seen, every piece ends with the question and fits."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from lazygguf.draft.windows import MAX_TAIL, N_SINK, plan_windows


@given(
    n_tokens=st.integers(1, 3000),
    begin=st.floats(0, 1),
    n_query=st.integers(1, 128),
    n_ctx=st.integers(512, 1200),
)
def test_every_token_is_seen_and_every_piece_ends_with_the_question(
    n_tokens: int, begin: float, n_query: int, n_ctx: int
) -> None:
    first = int(begin * (n_tokens - 1))
    query = first, min(first + n_query, n_tokens)
    windows = plan_windows(n_tokens, query, n_ctx)
    assert set(np.concatenate([window.positions for window in windows]).tolist()) == set(range(n_tokens))
    asked = list(range(*query))
    for window in windows:
        assert len(window.positions) <= n_ctx
        assert window.positions[slice(*window.query)].tolist() == asked
        after = window.positions[window.query[1] :]
        assert len(after) <= MAX_TAIL  # the template's tail, or nothing
        if len(windows) > 1:
            assert window.positions[:N_SINK].tolist() == list(range(N_SINK))
        document = window.positions[: window.query[0]]
        assert (np.diff(document) > 0).all()


def test_a_prompt_that_fits_is_read_once_as_it_is() -> None:
    (window,) = plan_windows(600, (560, 590), 600)
    assert window.positions.tolist() == list(range(600))
    assert window.query == (560, 590)


def test_a_question_before_the_document_is_asked_again_after_it() -> None:
    (window,) = plan_windows(600, (10, 20), 700)
    assert window.positions.tolist() == [*range(600), *range(10, 20)]
    assert window.query == (600, 610)


def test_pieces_overlap() -> None:
    windows = plan_windows(2000, (1980, 1995), 512)
    for one, next_one in zip(windows, windows[1:]):
        assert len(set(one.positions[N_SINK:-20].tolist()) & set(next_one.positions[N_SINK:-20].tolist())) >= 40


@pytest.mark.parametrize("n_tokens", [1001, 1500, 1850, 1900, 5000])
def test_pieces_are_no_longer_than_they_must_be(n_tokens: int) -> None:
    windows = plan_windows(n_tokens, (n_tokens - 20, n_tokens), 1000)
    read = sum(len(window.positions) - N_SINK - 20 for window in windows)
    assert len({len(window.positions) for window in windows}) == 1
    assert read <= n_tokens * 8 / 7 + len(windows) * 4


def test_a_context_that_holds_the_question_only_is_refused() -> None:
    with pytest.raises(ValueError, match="a context of 40 tokens cannot hold a question of 40"):
        plan_windows(600, (560, 600), 40)
