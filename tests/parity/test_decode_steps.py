"""A plain decode step runs all segments as one graph; every other step runs them one after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

import numpy as np
import pytest
from parity import compare
from parity.compare import EXACT, assert_same_step, logits_of, prompt, schedule_of
from reference import Reference, nmse
from tiny_gguf import TinyConfig

from lazygguf import KeepSchedule, LazyModel, PruningPoint
from lazygguf._ffi import NativeSession

Write = Callable[[TinyConfig], tuple[Path, dict[str, np.ndarray]]]

POINTS = (PruningPoint(0, 0.6), PruningPoint(1, 0.4, n_query=3), PruningPoint(3, 0.2))
SCHEDULES = {
    "unlimited": schedule_of(*POINTS),
    "budget": schedule_of(*POINTS, max_revive=3),
    "decode cached": schedule_of(*POINTS, max_revive=3, decode_cached=True),
    "dense for now": schedule_of(*POINTS, min_prompt=105),
    "entry": schedule_of(PruningPoint(-1, 0.8), *POINTS, max_revive=2),
}


def new_session(path: Path, schedule: Optional[KeepSchedule] = None, **kwargs: Any) -> NativeSession:
    return compare.new_session(path, schedule, n_threads=1, **kwargs)


def submissions(session: NativeSession) -> tuple[int, int]:
    stats = session.stats()
    return stats.n_submissions, stats.n_waits


class Seen(NamedTuple):
    """What a step gave."""

    bits: bytes
    live: list[list[int]]


def seen_of(session: NativeSession) -> Seen:
    n_segments = len(session.stats().n_layers)
    return Seen(logits_of(session).tobytes(), [session.live(s).tolist() for s in range(n_segments)])


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_a_plain_decode_step_is_one_submission_and_one_wait(tiny_model: Write, name: str) -> None:
    path, _ = tiny_model(TinyConfig(seed=3))
    session = new_session(path, SCHEDULES[name], n_ubatch=128)
    session.eval(prompt(100))
    assert submissions(session) == (4, 4)  # one for each segment
    n_revived = 0
    for token in prompt(12, seed=1):
        session.eval([token])
        assert submissions(session) == (1, 1)
        n_revived += session.stats().n_revived
    assert n_revived > 0 or name == "dense for now"  # which computed all in every segment


def test_a_dense_decode_step_is_one_submission(tiny_model: Write) -> None:
    path, _ = tiny_model(TinyConfig(seed=3))
    session = new_session(path)
    for ids in (prompt(40), [5], [6]):
        session.eval(ids)
        assert submissions(session) == (1, 1)


def test_a_prompt_is_a_submission_for_each_ubatch_of_a_segment(tiny_model: Write) -> None:
    path, _ = tiny_model(TinyConfig(seed=3))
    session = new_session(path, schedule_of(PruningPoint(1, 0.5)), n_ubatch=40)
    session.eval(prompt(100))
    assert session.stats().n_computed == [100, 50]
    assert submissions(session) == (3 + 2, 3 + 2)


@pytest.mark.parametrize("said", [{"query_span": (100, 101)}, {"protect": [7]}], ids=str)
def test_a_step_of_which_more_is_said_runs_segment_by_segment_once(tiny_model: Write, said: dict[str, Any]) -> None:
    path, _ = tiny_model(TinyConfig(seed=3))
    session = new_session(path, SCHEDULES["budget"], n_ubatch=128)
    session.eval(prompt(100))
    for more, n in (({}, 1), (said, 4), ({}, 1)):
        session.eval([5], **more)
        assert submissions(session) == (n, n)


def test_a_step_with_scores_from_outside_runs_segment_by_segment(tiny_model: Write) -> None:
    path, _ = tiny_model(TinyConfig(seed=3))
    session = new_session(path, SCHEDULES["entry"], n_ubatch=128)
    session.eval(prompt(100), scores=np.linspace(0, 1, 100, dtype=np.float32))
    for scores, n in ((None, 1), (np.full(102, np.nan, np.float32), 4), (None, 1)):
        session.eval([5], scores=scores)
        assert submissions(session) == (n, n)


def test_tokens_that_wait_before_layer_0_again_end_the_choice(tiny_model: Write) -> None:
    path, _ = tiny_model(TinyConfig(seed=3))
    session = new_session(path, SCHEDULES["entry"], n_ubatch=128)
    session.eval(prompt(100))
    session.eval([5])
    session.forget([40, 41])
    for n in (4, 1):
        session.eval([5])
        assert submissions(session) == (n, n)


def test_more_rows_than_a_ubatch_holds_are_computed_in_ubatches(tiny_model: Write) -> None:
    path, weights = tiny_model(TinyConfig(seed=3))
    session = new_session(path, SCHEDULES["budget"], n_ubatch=2)
    reference = Reference(weights, TinyConfig(seed=3), SCHEDULES["budget"])
    n_more = 0
    for ids in (prompt(100), *([token] for token in prompt(10, seed=1))):
        assert_same_step(session, reference, ids)
        n_more += len(ids) == 1 and submissions(session)[0] > 1
    assert n_more > 0


@pytest.mark.parametrize("weights", ["as-is", "fast"])
@pytest.mark.parametrize("weight_type", ["F32", "Q4_K"])
def test_one_graph_gives_the_bits_of_a_graph_for_each_segment(
    tiny_model: Write, weight_type: str, weights: str
) -> None:
    """Where all go on, nothing is chosen, so that both kinds of steps compute the same."""
    path, _ = tiny_model(TinyConfig.for_type(weight_type, seed=3))
    schedule = schedule_of(PruningPoint(0, 1.0), PruningPoint(1, 1.0), PruningPoint(2, 1.0))
    one, several = (new_session(path, schedule, n_ubatch=64, type_k="f16", weights=weights) for _ in range(2))
    one.eval(prompt(150))
    several.eval(prompt(150))
    for pos, token in enumerate(prompt(5, seed=1), start=150):
        one.eval([token])
        several.eval([token], query_span=(pos, pos + 1))
        assert (submissions(one), submissions(several)) == ((1, 1), (4, 4))
        assert logits_of(one).tobytes() == logits_of(several).tobytes()


@pytest.mark.parametrize("weights", ["as-is", "fast"])
@pytest.mark.parametrize("n_query", [1, "question"])
def test_a_last_token_that_is_read_again_and_the_answer_after_it_are_the_same(
    tiny_model: Write, n_query: Union[int, str], weights: str
) -> None:
    path, _ = tiny_model(TinyConfig(seed=3))
    points = [PruningPoint(il, keep, n_query=n_query) for il, keep in ((0, 0.6), (1, 0.4), (3, 0.3))]
    session = new_session(path, schedule_of(*points, max_revive=0), weights=weights)
    ids = prompt(100)
    session.eval(ids, query_span=(90, 95))
    seen = [seen_of(session)]
    for _ in range(2):
        session.trim(99)
        session.eval([ids[-1]])
        assert submissions(session) == (4, 4)
        seen.append(seen_of(session))
        for token in prompt(6, seed=1):
            session.eval([token])
            assert submissions(session) == (1, 1)
            seen.append(seen_of(session))
    assert seen[1:8] == seen[8:]
    assert seen[0].live == seen[1].live
    if weights == "fast":
        assert seen[0] == seen[1]
    else:  # ggml's kernels sum in another order where a row is beside others
        assert nmse(np.frombuffer(seen[0].bits, np.float32), np.frombuffer(seen[1].bits, np.float32)) <= EXACT


def test_a_plain_decode_step_that_fails_is_one_again(tiny_model: Write) -> None:
    path, _ = tiny_model(TinyConfig(seed=3))
    failing, clean = (new_session(path, SCHEDULES["budget"]) for _ in range(2))

    def fail(n_done: int, n_total: int) -> None:
        raise KeyError

    for session in (failing, clean):
        session.eval(prompt(100))
    for token in prompt(6, seed=1):
        with pytest.raises(KeyError):
            failing.eval([token], progress=fail)
        for session in (failing, clean):
            session.eval([token])
            assert submissions(session) == (1, 1)
        assert logits_of(failing).tobytes() == logits_of(clean).tobytes()


def test_many_decode_steps_with_other_rows_in_each_are_the_references(tiny_model: Write) -> None:
    """More shapes than graphs are kept, and some of them again."""
    config = TinyConfig(seed=3)
    path, weights = tiny_model(config)
    schedule = schedule_of(*POINTS, max_revive=6)
    session, reference = new_session(path, schedule), Reference(weights, config, schedule)
    assert_same_step(session, reference, prompt(100))
    shapes = []
    for token in prompt(40, seed=2):
        assert_same_step(session, reference, [token])
        shapes.append(tuple(session.stats().n_computed))
    assert len(set(shapes)) > 8
    assert len(set(shapes)) < len(shapes)


@pytest.mark.parametrize("keep", ["off", "1:0.5,2:0.25"])
def test_stats_tell_the_submissions_of_a_token(tiny_model: Write, keep: str) -> None:
    path, _ = tiny_model(TinyConfig(n_ctx_train=512))
    schedule = keep if keep == "off" else KeepSchedule.parse(keep, min_prompt=0)
    with LazyModel(path, keep=schedule, n_threads=1) as model:
        model.create_completion(prompt(60), max_tokens=8, temperature=0)
        stats = model.stats
        assert stats.n_steps == stats.n_decoded - 1
        assert stats.submissions_per_token == stats.waits_per_token == 1.0
