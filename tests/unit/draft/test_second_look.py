"""When more is read before the first token, and what."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lazygguf.draft.rules import FirstLook, SecondLook, edge_pull, entropy, extra_tokens

N = 100
RULE = SecondLook(share=0.1, max_entropy=2.0, max_edge=1.5)
SURE = np.array([20.0, 0.0, 0.0, 0.0], np.float32)
UNSURE = np.zeros(50, np.float32)


def view(**changes: object) -> FirstLook:
    """Tokens 40 to 49 and 60 to 79 read, all looked at alike; the draft wanted late tokens most."""
    is_read = np.zeros(N, np.bool_)
    is_read[40:50] = is_read[60:80] = True
    looked_at = np.where(is_read, np.float32(0.02), np.float32(np.nan))
    plain = FirstLook(SURE, is_read, np.arange(N, dtype=np.float32), looked_at, np.ones(N, np.bool_))
    return replace(plain, **changes)  # type: ignore[arg-type]


def pulled(at: int) -> FirstLook:
    """The token looks as if the answer went on in the gap beside it."""
    looked_at = view().attention
    assert looked_at is not None
    looked_at[at] = 0.5
    return view(attention=looked_at)


def test_entropy_is_that_of_the_distribution() -> None:
    assert entropy(UNSURE) == pytest.approx(np.log(50))
    assert entropy(SURE) == pytest.approx(0, abs=1e-6)
    assert entropy(np.log(np.array([0.5, 0.25, 0.25], np.float32))) == pytest.approx(1.5 * np.log(2))


def test_what_will_do_is_left_as_it_is() -> None:
    assert extra_tokens(view(), RULE).size == 0
    assert edge_pull(view()) == pytest.approx(1.0)


def test_an_unsure_model_reads_the_unread_tokens_that_the_draft_wanted_most() -> None:
    assert extra_tokens(view(logits=UNSURE), RULE).tolist() == list(range(90, 100))
    fixed = np.arange(N, dtype=np.float32)
    fixed[95:] = np.inf  # read in any case: not to be read again
    assert extra_tokens(view(logits=UNSURE, scores=fixed), RULE).tolist() == list(range(85, 95))


def test_an_edge_that_is_looked_at_is_read_beyond() -> None:
    assert extra_tokens(pulled(49), RULE).tolist() == list(range(50, 58))
    assert extra_tokens(pulled(60), replace(RULE, share=0.05)).tolist() == list(range(55, 60))


def test_inside_of_what_was_read_a_look_is_no_sign() -> None:
    assert extra_tokens(pulled(45), RULE).size == 0


def test_what_is_read_on_top_is_bounded_and_can_be_nothing() -> None:
    both = replace(pulled(49), logits=UNSURE)
    for share in (0.01, 0.05, 0.3):
        extra = extra_tokens(both, replace(RULE, share=share))
        assert len(extra) == int(share * N + 1e-6)
        assert not both.is_read[extra].any()
        assert len(set(extra.tolist())) == len(extra)
    assert extra_tokens(both, replace(RULE, share=0.0)).size == 0


def test_the_question_and_the_template_are_no_edges() -> None:
    content = np.ones(N, np.bool_)
    content[49] = False
    assert extra_tokens(replace(pulled(49), is_content=content), RULE).size == 0


def test_without_scores_inside_the_model_only_entropy_counts() -> None:
    assert edge_pull(view(attention=None)) == 0
    assert extra_tokens(view(attention=None, logits=UNSURE), RULE).size == 10
