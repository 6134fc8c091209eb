"""``NativeSession`` at the C boundary: what it refuses, and that a step that fails leaves everything as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np
import pytest
from tiny_gguf import TinyConfig, write_tiny_gguf

from lazygguf import Cancelled, ContextFullError, KeepSchedule, PruningPoint
from lazygguf._ffi import NativeModel, NativeSession
from lazygguf.errors import LazyError

Write = Callable[[TinyConfig], tuple[Path, Any]]
CONFIG = TinyConfig(seed=3)  # 6 layers, 4 heads of 16
LAZY = KeepSchedule(
    (PruningPoint(1, 0.5, pool=3), PruningPoint(3, 0.25, n_query="question")), n_sink=2, min_prompt=0, max_revive=3
)
SCHEDULES = {"dense": None, "lazy": LAZY}
# Whole states are compared bit by bit, so sums may not depend on how many threads there are.
SETTINGS: dict[str, Any] = {"n_ctx": 256, "n_ubatch": 16, "n_threads": 1}


class State(NamedTuple):
    """Everything that can be seen of a session, but for the memory it holds."""

    n_tokens: int
    logits: Optional[bytes]
    live: list[list[int]]
    cached: list[list[int]]
    scores: list[Optional[bytes]]
    stats: Any


def state_of(session: NativeSession) -> State:
    logits, stats = session.logits(), session.stats()
    segments = range(len(stats.n_layers))
    scores = [session.scores(s) for s in segments]
    return State(
        session.n_tokens,
        None if logits is None else logits.tobytes(),
        [session.live(s).tolist() for s in segments],
        [session.cached(s).tolist() for s in segments],
        [None if row is None else row.tobytes() for row in scores],
        stats._replace(kv_bytes=0, aux_bytes=0),  # memory taken for a step that failed may stay
    )


def prompt(n: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(3, CONFIG.n_vocab, n)]


@pytest.fixture(scope="module")
def model(tiny_model: Write) -> NativeModel:
    return NativeModel(tiny_model(CONFIG)[0])


@pytest.fixture(params=list(SCHEDULES))
def schedule(request: pytest.FixtureRequest) -> Optional[KeepSchedule]:
    return SCHEDULES[request.param]


def new_session(model: NativeModel, schedule: Optional[KeepSchedule] = None, **changes: Any) -> NativeSession:
    return NativeSession(model, schedule=schedule, **{**SETTINGS, **changes})


# ---- tokens and the context (16, 18)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "0 tokens to read, expected at least 1"),
        ([-1], r"token id at index 0 is -1, expected a value in \[0, 319\]"),
        ([3, 320], r"token id at index 1 is 320, expected a value in \[0, 319\]"),
        ([3, 4, 2**31 - 1], "token id at index 2 is 2147483647"),
        ([-(2**31)], "token id at index 0 is -2147483648"),
    ],
)
def test_token_ids_are_checked_before_anything_is_read(
    model: NativeModel, schedule: Optional[KeepSchedule], ids: list[int], message: str
) -> None:
    session = new_session(model, schedule)
    for _ in range(2):
        before = state_of(session)
        with pytest.raises(ValueError, match=message):
            session.eval(ids)
        assert state_of(session) == before
        session.eval(prompt(40))


@pytest.mark.parametrize("ids", [[2**31], [2**40], [-(2**31) - 1]])
@pytest.mark.parametrize("as_array", [False, True])
def test_ids_that_do_not_fit_into_32_bits_are_refused(model: NativeModel, ids: list[int], as_array: bool) -> None:
    session = new_session(model)
    with pytest.raises((ValueError, OverflowError)):
        session.eval(np.array(ids, np.int64) if as_array else ids)  # type: ignore[arg-type]
    assert session.n_tokens == 0


def test_the_context_can_be_filled_to_the_last_token_and_not_beyond(
    model: NativeModel, schedule: Optional[KeepSchedule]
) -> None:
    session = new_session(model, schedule, n_ctx=50)
    with pytest.raises(ContextFullError, match=r"51 tokens do not fit into a context of n_ctx 50 \(0 held, 51 new\)"):
        session.eval(prompt(51))
    assert session.n_tokens == 0
    session.eval(prompt(49))
    session.eval([5])
    full = state_of(session)
    for more in ([5], prompt(200)):
        with pytest.raises(ContextFullError, match=rf"\(50 held, {len(more)} new\)"):
            session.eval(more)
        assert state_of(session) == full
    session.trim(49)
    session.eval([5])
    assert session.n_tokens == 50
    session.reset()
    session.eval(prompt(50))
    assert session.n_tokens == 50


def test_a_context_of_0_is_the_training_length(model: NativeModel) -> None:
    assert NativeSession(model).n_ctx == model.n_ctx_train == CONFIG.n_ctx_train


@pytest.mark.parametrize(
    "span", [(-5, 3), (3, 3), (30, 20), (0, 2**31 - 1), (2**31 - 2, 2**31 - 1), (-(2**31), 2**31 - 1), (39, 40)]
)
def test_a_query_span_outside_of_the_prompt_changes_who_asks_and_breaks_nothing(
    model: NativeModel, span: tuple[int, int]
) -> None:
    session = new_session(model, LAZY)
    session.eval(prompt(40), query_span=span)
    session.eval([5], query_span=span)
    assert session.live(2).tolist()[-1] == 40


# ---- failures (20, 21, 27)


class Failure(NamedTuple):
    """A way to end a step in the middle."""

    exception: type[BaseException]
    act: Callable[[NativeSession], None]


def raise_(error: BaseException) -> Callable[[NativeSession], None]:
    def act(session: NativeSession) -> None:
        raise error

    return act


FAILURES = {
    "ValueError": Failure(ValueError, raise_(ValueError("mine"))),
    "KeyboardInterrupt": Failure(KeyboardInterrupt, raise_(KeyboardInterrupt())),
    "SystemExit": Failure(SystemExit, raise_(SystemExit(3))),
    "cancel": Failure(Cancelled, NativeSession.cancel),
}


def fail(session: NativeSession, ids: Sequence[int], failure: Failure, n_calls: int) -> None:
    """A step that fails at the progress callback's n-th call, or is cancelled there."""
    seen = []

    def progress(n_done: int, n_total: int) -> None:
        seen.append(n_done)
        if len(seen) == n_calls:
            failure.act(session)

    with pytest.raises(failure.exception):
        session.eval(ids, progress=progress)


def n_callbacks(model: NativeModel, schedule: Optional[KeepSchedule], steps: list[list[int]]) -> list[int]:
    session, counts = new_session(model, schedule), []
    for ids in steps:
        seen: list[int] = []
        session.eval(ids, progress=lambda n_done, n_total, seen=seen: seen.append(n_done))  # type: ignore[misc]
        counts.append(len(seen))
    return counts


# prefill, decode, a later turn, decode
STEPS = [prompt(70), prompt(1, seed=1), prompt(33, seed=2), prompt(1, seed=3), prompt(1, seed=4)]


@pytest.mark.parametrize("name", list(FAILURES))
def test_after_a_step_that_fails_anywhere_the_session_is_one_that_never_failed(
    model: NativeModel, schedule: Optional[KeepSchedule], name: str
) -> None:
    failing, clean = new_session(model, schedule), new_session(model, schedule)
    for ids, n in zip(STEPS, n_callbacks(model, schedule, STEPS)):
        n_possible = n - 1 if name == "cancel" else n  # a cancel in the last callback comes too late
        for n_calls in sorted({1, n // 2, n_possible} - {0}):
            if n_calls <= n_possible:
                before = state_of(failing)
                fail(failing, ids, FAILURES[name], n_calls)
                assert state_of(failing) == before
        failing.eval(ids)
        clean.eval(ids)
        assert state_of(failing) == state_of(clean)
    for session in (failing, clean):
        session.trim(80)
    fail(failing, prompt(20, seed=5), FAILURES["ValueError"], 1)
    for session in (failing, clean):
        session.eval(prompt(20, seed=6))
    assert state_of(failing) == state_of(clean)


@pytest.mark.parametrize("n_ubatch", [16, 128])  # ggml's attention over 64 rows and more is another kernel
def test_a_step_that_fails_at_nan_leaves_nothing_behind(
    tmp_path: Path, schedule: Optional[KeepSchedule], n_ubatch: int
) -> None:
    def poison(kv: Any, tensors: Any) -> None:
        tensors["token_embd.weight"].data[7, 0] = np.nan

    write_tiny_gguf(tmp_path / "nan.gguf", CONFIG, overrides=poison)
    model = NativeModel(tmp_path / "nan.gguf")
    sound = [token for token in prompt(140) if token != 7]
    failing, clean = (new_session(model, schedule, n_ubatch=n_ubatch) for _ in range(2))
    for ids in (sound[:80], sound[80:81], sound[81:]):
        with pytest.raises(LazyError, match="not finite"):
            failing.eval([7, *sound[:100]])
        failing.eval(ids)
        clean.eval(ids)
        assert state_of(failing) == state_of(clean)


def test_a_cancel_from_another_thread_stops_a_prefill(model: NativeModel, schedule: Optional[KeepSchedule]) -> None:
    failing, clean = new_session(model, schedule, n_ubatch=1), new_session(model, schedule, n_ubatch=1)
    inside, cancelled = threading.Event(), threading.Event()

    def cancel() -> None:
        assert inside.wait(60)
        failing.cancel()
        cancelled.set()

    def progress(n_done: int, n_total: int) -> None:
        inside.set()
        assert cancelled.wait(60)

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Cancelled):
        failing.eval(prompt(200), progress=progress)
    thread.join()
    assert state_of(failing) == state_of(clean)
    failing.eval(prompt(50))
    clean.eval(prompt(50))
    assert state_of(failing) == state_of(clean)


def test_a_cancel_between_two_steps_stops_nothing(model: NativeModel) -> None:
    session = new_session(model)
    session.cancel()
    session.eval(prompt(40))
    session.cancel()
    session.trim(20)
    session.eval([5])
    assert session.n_tokens == 21


# ---- threads and life (22)


def test_a_second_thread_is_refused_and_the_first_one_goes_on(model: NativeModel) -> None:
    session, clean = new_session(model, LAZY), new_session(model, LAZY)
    inside, go_on = threading.Event(), threading.Event()

    def progress(n_done: int, n_total: int) -> None:
        inside.set()
        assert go_on.wait(60)

    thread = threading.Thread(target=session.eval, args=(prompt(60),), kwargs={"progress": progress})
    thread.start()
    assert inside.wait(60)
    try:
        uses: list[Callable[[], Any]] = [lambda: session.eval([5]), session.reset, lambda: session.trim(0)]
        for use in uses:
            with pytest.raises(RuntimeError, match="another thread is using this session"):
                use()
    finally:
        go_on.set()
        thread.join()
    clean.eval(prompt(60))
    assert state_of(session) == state_of(clean)


@pytest.mark.parametrize("name", ["eval", "reset", "trim"])
def test_a_session_used_by_its_own_callback_is_refused(model: NativeModel, name: str) -> None:
    session = new_session(model)
    args: dict[str, tuple[Any, ...]] = {"eval": ([5],), "reset": (), "trim": (0,)}

    def progress(n_done: int, n_total: int) -> None:
        getattr(session, name)(*args[name])

    with pytest.raises(RuntimeError, match="another thread is using this session"):
        session.eval(prompt(40), progress=progress)
    assert session.n_tokens == 0


def test_sessions_of_one_model_do_not_disturb_each_other(model: NativeModel) -> None:
    expected = new_session(model, LAZY)
    expected.eval(prompt(60))
    sessions = [new_session(model, LAZY) for _ in range(3)]
    threads = [threading.Thread(target=session.eval, args=(prompt(60),)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(state_of(session) == state_of(expected) for session in sessions)


def test_a_closed_session_says_so_and_closes_again(model: NativeModel) -> None:
    session = new_session(model)
    session.eval(prompt(40))
    session.close()
    session.close()
    uses: list[Callable[[], Any]] = [
        lambda: session.eval([5]),
        session.logits,
        lambda: session.n_tokens,
        session.reset,
        lambda: session.trim(0),
        session.cancel,
        session.stats,
        lambda: session.live(0),
        lambda: session.cached(0),
        lambda: session.scores(0),
        lambda: session.asked_by(0, (0, 1)),
    ]
    for use in uses:
        with pytest.raises(RuntimeError, match="the session is closed"):
            use()


def test_a_closed_model_opens_no_sessions(tiny_model: Write) -> None:
    model = NativeModel(tiny_model(CONFIG)[0])
    model.close()
    model.close()
    with pytest.raises(RuntimeError, match="the model is closed"):
        NativeSession(model)


# ---- trim


def test_trimming_to_the_present_length_keeps_everything(model: NativeModel, schedule: Optional[KeepSchedule]) -> None:
    session = new_session(model, schedule)
    session.trim(0)
    session.eval(prompt(40))
    before = state_of(session)
    session.trim(40)
    assert state_of(session) == before


@pytest.mark.parametrize("n_tokens", [-1, 41, 2**31 - 1, -(2**31)])
def test_trimming_to_more_than_there_is_is_refused(model: NativeModel, n_tokens: int) -> None:
    session = new_session(model)
    session.eval(prompt(40))
    before = state_of(session)
    with pytest.raises(ValueError, match=rf"trim to {n_tokens} tokens, expected a value in \[0, 40\]"):
        session.trim(n_tokens)
    assert state_of(session) == before


# not 1: ggml multiplies a single row with another kernel
@pytest.mark.parametrize("n_left", [0, 2, 39, 64, 99])
def test_a_dense_session_that_was_trimmed_goes_on_as_a_fresh_one(model: NativeModel, n_left: int) -> None:
    trimmed, fresh = new_session(model), new_session(model)
    trimmed.eval(prompt(100))
    trimmed.trim(n_left)
    assert trimmed.logits() is None and trimmed.n_tokens == n_left
    assert trimmed.cached(0).tolist() == list(range(n_left))
    if n_left:
        fresh.eval(prompt(100)[:n_left])
    for ids in (prompt(30, seed=1), [5], prompt(10, seed=2)):
        trimmed.eval(ids)
        fresh.eval(ids)
        assert state_of(trimmed) == state_of(fresh)


@pytest.mark.parametrize("n_turns", [1, 2])
def test_a_trim_to_a_mark_brings_the_state_back_as_it_was(
    model: NativeModel, schedule: Optional[KeepSchedule], n_turns: int
) -> None:
    session = new_session(model, schedule)
    for turn in range(n_turns):
        session.eval(prompt(60, seed=turn))
        session.eval([7])
    session.eval(prompt(20, seed=9), (n_turns * 61 + 5, n_turns * 61 + 10))
    session.mark()
    before, found = state_of(session), []
    for _ in range(3):
        steps = []
        for token in prompt(12, seed=4):
            session.eval([token])
            steps.append(state_of(session))
        found.append(steps)
        if schedule is not None:
            held = [set(step) for step in steps[-1].cached]
            assert any(held[s] - set(before.cached[s]) - set(range(before.n_tokens, 256)) for s in (1, 2))  # came back
        session.trim(before.n_tokens)
        assert state_of(session) == before
    assert found[0] == found[1] == found[2]


def test_a_mark_lasts_until_its_tokens_are_changed(model: NativeModel) -> None:
    session = new_session(model, LAZY)

    def comes_back() -> bool:
        session.trim(60)
        return session.logits() is not None

    def marked() -> None:
        session.reset()
        session.eval(prompt(60))
        session.mark()
        session.eval([5])

    marked()
    assert comes_back()
    session.eval([6])
    assert comes_back()

    def after_a_prompt() -> None:
        session.eval(prompt(2))  # it may bring back any number, and gives rows to old tokens

    def after_a_shorter_trim() -> None:
        session.trim(59)
        session.eval(prompt(2))

    def after_a_reset() -> None:
        session.reset()
        session.eval(prompt(61))

    for change in (after_a_prompt, after_a_shorter_trim, after_a_reset):
        marked()
        change()
        assert not comes_back()


def test_a_step_that_fails_leaves_the_mark(model: NativeModel, schedule: Optional[KeepSchedule]) -> None:
    session = new_session(model, schedule)
    session.eval(prompt(60))
    session.mark()
    before = state_of(session)
    session.eval([5])

    def fail(done: int, total: int) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        session.eval(prompt(40, seed=1), None, fail)
    session.trim(60)
    assert state_of(session) == before


def test_a_lazy_session_that_was_trimmed_to_nothing_is_a_fresh_one(model: NativeModel) -> None:
    trimmed, fresh = new_session(model, LAZY), new_session(model, LAZY)
    trimmed.eval(prompt(100))
    trimmed.eval([5])
    trimmed.trim(0)
    for ids in (prompt(60, seed=1), [5], prompt(10, seed=2)):
        trimmed.eval(ids)
        fresh.eval(ids)
        assert state_of(trimmed) == state_of(fresh)


# ---- who asked what


def test_scores_can_be_had_by_some_of_those_that_asked(model: NativeModel) -> None:
    session = new_session(model, LAZY)
    session.eval(prompt(60), (40, 50))
    session.eval([5])
    for segment, asking in enumerate([(60, 61), (40, 61)]):  # the newest token; the question and it
        scores = session.scores(segment)
        assert scores is not None
        by_all = session.asked_by(segment, (0, 61))
        by_them = session.asked_by(segment, asking)
        assert by_all is not None and by_them is not None and np.array_equal(by_all, by_them)
        live = np.isfinite(scores)
        assert np.array_equal(by_all[live], scores[live]) and not by_all[~live].any()
    question, newest = session.asked_by(1, (40, 50)), session.asked_by(1, (60, 61))
    assert question is not None and newest is not None
    assert question[50:].sum() == 0 and newest[60] > 0 and newest.sum() == pytest.approx(1.0, abs=1e-3)
    both = session.asked_by(1, (40, 61))
    assert both is not None and np.allclose(both, (question * 10 + newest) / 11, atol=1e-6)
    single = [session.asked_by(1, (pos, pos + 1)) for pos in range(40, 50)]
    assert np.allclose(np.mean([row for row in single if row is not None], axis=0), question, atol=1e-6)


def test_a_session_remembers_who_asked_also_where_it_prunes_nothing(model: NativeModel) -> None:
    session = new_session(model, KeepSchedule(LAZY.points, min_prompt=100))
    session.eval(prompt(60), (40, 50))
    assert session.scores(1) is None
    found = session.asked_by(1, (40, 50))
    assert found is not None and found.shape == (60,)
    assert found[0] > 0 and found[50:].sum() == 0


@pytest.mark.parametrize(
    ("segment", "asking"),
    [(2, (40, 50)), (3, (40, 50)), (-1, (40, 50)), (1, (10, 20)), (1, (50, 40)), (1, (-5, 50)), (1, (40, 2**31 - 1))],
)
def test_nobody_asked_where_nothing_is_remembered(model: NativeModel, segment: int, asking: tuple[int, int]) -> None:
    session = new_session(model, LAZY)
    session.eval(prompt(60), (40, 50))
    assert session.asked_by(segment, asking) is None


def test_a_dense_session_and_an_empty_one_remember_nobody(model: NativeModel) -> None:
    dense = new_session(model)
    dense.eval(prompt(60), (40, 50))
    assert dense.asked_by(0, (40, 50)) is None
    assert new_session(model, LAZY).asked_by(0, (0, 1)) is None


def test_asking_who_asked_changes_no_later_step(model: NativeModel) -> None:
    plain, watched = new_session(model, LAZY), new_session(model, LAZY)
    for ids in (prompt(60), [5], [6], prompt(10, seed=2), [7]):
        plain.eval(ids)
        watched.eval(ids)
        watched.asked_by(1, (0, watched.n_tokens))
        watched.asked_by(0, (watched.n_tokens - 1, watched.n_tokens))
        assert state_of(watched) == state_of(plain)
