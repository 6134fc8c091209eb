"""A watched session: whose attention counts, and what of it stays when the context changes."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
import pytest

from lazygguf import KeepSchedule, PruningPoint
from lazygguf.read import watched_session
from lazygguf.read.watched_session import WatchedSession

POINT = PruningPoint(2, 0.5, n_query="question", query_max=True)
SCHEDULE = KeepSchedule((PruningPoint(1, 0.8), POINT))


class FakeSession:
    """Each token attends to the one before it, with its own id as the number."""

    def __init__(self, records: bool) -> None:
        self.ids: list[int] = []
        self.records = records
        self.asked: list[Any] = []
        self.n_marked = -1
        self.error: Optional[Exception] = None

    @property
    def n_tokens(self) -> int:
        return len(self.ids)

    def eval(
        self,
        ids: Any,
        span: Any = None,
        progress: Any = None,
        scores: Any = None,
        attention: Any = None,
        **_: Any,
    ) -> Any:
        if self.error is not None:
            raise self.error
        self.ids += ids
        self.asked.append(attention)
        if attention is None:
            return None
        begin, end = span
        rows = np.zeros((len(attention.layers), end - begin, self.n_tokens), np.float32)
        for pos in range(max(begin, 1), end):
            rows[:, pos - begin, pos - 1] = self.ids[pos]
        return rows

    def asked_by(self, segment: int, asking: tuple[int, int]) -> Any:
        assert segment == 1 and not self.records
        out = np.zeros(self.n_tokens, np.float32)
        for pos in range(max(asking[0], 1), asking[1]):
            out[pos - 1] = self.ids[pos]
        return out

    def trim(self, n_tokens: int) -> None:
        del self.ids[n_tokens:]

    def mark(self) -> None:
        self.n_marked = self.n_tokens

    def reset(self) -> None:
        self.ids.clear()

    def live(self, segment: int) -> int:
        return segment


def watched(records: bool = False) -> tuple[WatchedSession, FakeSession]:
    session: Any = FakeSession(records)
    return WatchedSession.of(session, None if records else SCHEDULE, SCHEDULE, 8, 4), session


def attended(session: WatchedSession) -> Optional[list[float]]:
    found = session.attended()
    return None if found is None else found.scores.tolist()


@pytest.mark.parametrize("records", [False, True])
def test_the_question_counts_and_the_prompt_alone_is_told(records: bool) -> None:
    session, _ = watched(records)
    assert attended(session) is None
    session.eval([1, 2, 3, 4, 5], (2, 4))
    assert attended(session) == [0, 3, 4, 0, 0]
    session.mark()
    session.eval([9])
    session.eval([8])
    assert attended(session) == ([0, 3, 4, 0, 0] if records else [0, 3, 4, 0, 9])


def test_an_answer_without_points_is_read_as_ever() -> None:
    session, fake = watched(records=True)
    session.eval([1, 2, 3], (1, 3))
    session.eval([4])
    assert [request is None for request in fake.asked] == [False, True]
    assert fake.asked[0].layers == (2,) and not fake.asked[0].by_head


@pytest.mark.parametrize("records", [False, True])
def test_without_a_question_the_last_24_tokens_ask(records: bool) -> None:
    session, _ = watched(records)
    session.eval(list(range(1, 41)))
    assert attended(session) == [0.0] * 15 + [*range(17, 41), 0]
    session.eval(list(range(1, 31)), (2, 5))  # that question was read before
    found = attended(session)
    assert found is not None and len(found) == 70 and found[:45] == [0.0] * 45 and found[45] == 7


def test_of_a_long_question_the_last_128_tokens_ask() -> None:
    session, _ = watched(records=True)
    session.eval([1] * 200, (10, 190))
    assert np.flatnonzero(np.array(attended(session))).tolist() == list(range(61, 189))


def test_where_a_record_would_be_large_fewer_tokens_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_session, "_MAX_RECORDED", 500)
    session, _ = watched(records=True)
    session.eval([1] * 100, (10, 90))
    assert np.flatnonzero(np.array(attended(session))).tolist() == list(range(84, 89))
    session.eval([1] * 1000, (200, 290))
    assert np.flatnonzero(np.array(attended(session))).tolist() == [288]


@pytest.mark.parametrize("records", [False, True])
def test_a_prompt_that_comes_back_has_what_it_had(records: bool) -> None:
    session, _ = watched(records)
    session.eval([1, 2, 3, 4], (1, 3))
    session.mark()
    before = attended(session)
    session.eval([9])
    session.trim(4)
    assert attended(session) == before
    session.trim(2)  # another prompt
    session.eval([5, 6, 7], (3, 5))
    assert attended(session) == [0, 0, 6, 7, 0]
    session.trim(4)  # that length was marked, but not with these tokens
    session.mark()
    assert attended(session) == [0, 0, 6, 7]


def test_a_last_token_that_is_read_again_ends_the_prompt() -> None:
    session, _ = watched()
    session.eval([1, 2, 3, 4], (1, 3))
    session.trim(3)
    session.eval([7])
    session.mark()
    assert attended(session) == [2, 3, 7, 0]


def test_a_saved_session_remembers_who_asked() -> None:
    session, fake = watched()
    fake.ids = [1, 2, 3, 4]  # as a loaded session has them
    session.mark()
    assert attended(session) == [2, 3, 4, 0]
    unwatched, fake = watched(records=True)
    fake.ids = [1, 2, 3, 4]
    unwatched.mark()
    assert attended(unwatched) is None


def test_a_step_that_fails_changes_nothing() -> None:
    session, fake = watched()
    session.eval([1, 2, 3], (1, 3))
    fake.error = ValueError("no")
    for ids in ([4], [4, 5]):
        with pytest.raises(ValueError, match="no"):
            session.eval(ids)
    assert attended(session) == [2, 3, 0]


def test_a_reset_forgets() -> None:
    session, _ = watched()
    session.eval([1, 2, 3])
    session.mark()
    session.reset()
    assert attended(session) is None


def test_all_else_is_the_session_s() -> None:
    session, _ = watched()
    assert session.live(7) == 7


@pytest.mark.parametrize(
    ("usual", "layers", "by_head"),
    [
        (None, (7,), False),
        (KeepSchedule((PruningPoint(5, 0.5, n_layers=3),)), (3, 4, 5), False),
        (KeepSchedule((PruningPoint(5, 0.5, ((4, 1), (5, 0), (5, 2))),)), (4, 5), True),
        (KeepSchedule.drafted(), (7,), False),
    ],
)
def test_a_session_without_points_is_recorded_at_the_usual_one(
    usual: Optional[KeepSchedule], layers: tuple[int, ...], by_head: bool
) -> None:
    fake: Any = FakeSession(records=True)
    session = WatchedSession.of(fake, KeepSchedule.drafted(), usual, 8, 4)
    if by_head:
        fake.eval = lambda ids, span, *args, **more: fake.asked.append(args[2]) or np.zeros((2, 1, 4, 3), np.float32)
    session.eval([1, 2, 3], (2, 3))
    assert (fake.asked[0].layers, fake.asked[0].by_head) == (layers, by_head)


def test_the_best_of_the_heads_counts() -> None:
    fake: Any = FakeSession(records=True)
    point = PruningPoint(5, 0.5, ((4, 1), (5, 0)), query_max=True)
    attention = np.random.default_rng(0).random((2, 3, 4, 6)).astype(np.float32)
    fake.eval = lambda *args, **more: attention
    fake.ids = [1] * 6
    session = WatchedSession.of(fake, None, KeepSchedule((point,)), 8, 4)
    session.eval([1] * 6, (3, 6))
    session.mark()
    expected = np.maximum(attention[0, :, 1], attention[1, :, 0]).max(axis=0)
    assert attended(session) == pytest.approx(expected.tolist())
