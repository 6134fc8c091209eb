"""Baselines: their schedules, the share of work they promise, and that the engine does that share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from tiny_gguf import TinyConfig

pytest.importorskip("lazygguf.tools.eval", reason="lazygguf is not installed with its tools")

from lazygguf.tools.eval.engine import Engine
from lazygguf.tools.eval.methods import (
    BASELINES,
    BaselineOptions,
    Method,
    make_methods,
    paper_spelling,
    promised_share,
)
from lazygguf.tools.eval.prompts import TaskPrompt, Wording
from lazygguf.tools.schedule_options import Asking, ModelShape

from lazygguf import KeepSchedule
from lazygguf.model.options import ModelOptions

N_LAYER = 30
SHAPE = ModelShape(N_LAYER, 9, {})
TinyModel = Callable[[TinyConfig], tuple[Path, Any]]


def made(
    keeps: list[str], names: tuple[str, ...] = BASELINES, shape: ModelShape = SHAPE, **options: Any
) -> list[Method]:
    asking = Asking(options.pop("n_query", None), options.pop("pool", None), options.pop("max_revive", None))
    return make_methods(keeps, asking, BaselineOptions(names, **options), shape)


@pytest.mark.parametrize(
    "spelling, share",
    [
        ("14:0.5", 0.75),  # 15 layers whole, 15 at a half
        ("9:0.4,19:0.1", 0.5),  # 10 whole, 10 at 0.4, 10 at 0.1
        ("-1:0.3", 0.3),
        ("-1:0.5,14:0.25", 0.375),
    ],
)
def test_the_promised_share_is_the_mean_over_layers(spelling: str, share: float) -> None:
    assert promised_share(KeepSchedule.parse(spelling), N_LAYER) == pytest.approx(share)
    assert promised_share(None, N_LAYER) == 1.0


def test_the_papers_schedule_halves_what_enters_after_30_60_and_85_percent_of_the_layers() -> None:
    assert paper_spelling(30) == "8:0.5,17:0.25,25:0.125"  # after 9, 18 and 26 layers
    assert paper_spelling(24) == "7:0.5,14:0.25,20:0.125"
    (paper,) = made([], ("paper",))
    assert paper.schedule == KeepSchedule.paper("8:0.5,17:0.25,25:0.125")
    assert (paper.schedule.max_revive, paper.schedule.n_sink, paper.schedule.min_prompt) == (-1, 0, 0)


def test_baselines_promise_the_share_of_the_first_schedule_under_test() -> None:
    methods = {method.kind: method for method in made(["9:0.4,19:0.1", "14:0.5"])}
    assert methods["keep"].label == "14:0.5"  # the second one, dense and the baselines around it
    for kind in ("random", "recent", "static"):
        assert methods[kind].promised_share == pytest.approx(0.5)
    static = methods["static"].schedule
    assert static is not None
    assert (static.points[0].il, static.max_revive) == (3, 0)  # round(0.15 * 30) - 1, nothing brought back
    assert static.points[0].keep == pytest.approx((0.5 * 30 - 4) / 26)


def test_a_share_can_be_given_and_has_a_default() -> None:
    assert [m.promised_share for m in made([], ("random",), share=0.3)] == [0.3]
    assert [m.promised_share for m in made([], ("recent",))] == [0.46]
    assert [m.promised_share for m in made(["off"], ("recent",))] == [1.0, 0.46]


def test_methods_come_dense_first_then_the_schedules_then_the_baselines() -> None:
    kinds = [method.kind for method in made(["14:0.5"], ("paper", "dense", "random"))]
    assert kinds == ["dense", "keep", "paper", "random"]
    assert [method.kind for method in made(["off"], ())] == ["dense"]


def test_what_the_command_line_sets_holds_for_spelled_schedules(tmp_path: Path) -> None:
    profile = tmp_path / "p.json"
    profile.write_text(KeepSchedule.parse("14:0.25", n_query=8).to_json(), encoding="utf-8")
    spelled, kept, static, paper = made(
        ["14:0.5", str(profile)], ("static", "paper"), n_query="question", pool=7, max_revive=2
    )
    for method in (spelled, static):
        assert method.schedule is not None
        assert {(point.n_query, point.pool) for point in method.schedule.points} == {("question", 7)}
    for method, n_query in ((kept, 8), (paper, 1)):
        assert method.schedule is not None
        assert {(point.n_query, point.pool) for point in method.schedule.points} == {(n_query, 1)}
    assert [m.schedule.max_revive for m in (spelled, kept, static, paper) if m.schedule] == [2, 2, 0, -1]


def test_what_decides_answers_decides_the_digest_and_the_label_does_not() -> None:
    assert Method("a", "keep", KeepSchedule.parse("3:0.5")).digest == (
        Method("b", "keep", KeepSchedule.parse("3:0.5"), seed=9).digest
    )
    entry = KeepSchedule.parse("-1:0.5")
    digests = [
        Method("", "random", entry, seed=1).digest,
        Method("", "random", entry, seed=2).digest,
        Method("", "recent", entry).digest,
        Method("", "keep", KeepSchedule.parse("3:0.5", pool=3)).digest,
        Method("", "dense", None).digest,
    ]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize(
    "keeps, options, message",
    [
        (["29:0.5"], {}, "il is 29, expected at most 28"),
        (["-1:0.5"], {}, "il is -1, which needs scores from outside"),
        (["14:0.5", "14:0.5"], {}, "14:0.5 and 14:0.5 are the same schedule"),
        ([], {"static_il": 29}, r"--static-il 29, expected a layer in \[0, 28\]"),
        (
            [],
            {"static_il": 20},
            "baseline static: 21 of 30 layers before the pruning point are more than",
        ),
        ([], {"paper": "40:0.5"}, "il is 40, expected at most 28"),
    ],
)
def test_what_cannot_be_compared_is_refused(keeps: list[str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(keeps, **options)


def test_recent_scores_rise_and_the_question_and_what_follows_are_above_all() -> None:
    prompt = TaskPrompt(tuple(range(100)), (80, 90), max_tokens=5)
    scores = Method("", "recent", None).scores(prompt)
    assert scores is not None
    assert np.all(np.diff(scores[:80]) > 0)
    assert scores[80:].min() > scores[:80].max()
    first = Method("", "recent", None).scores(TaskPrompt(tuple(range(100)), (2, 10), max_tokens=5))
    assert first is not None
    assert set(np.argsort(-first)[:9]) == {*range(2, 10), 99}  # a question at the begin, and the newest token


def test_random_scores_are_the_same_for_a_prompt_and_a_seed() -> None:
    prompt, other = (
        TaskPrompt(tuple(range(100)), None, max_tokens=5),
        TaskPrompt(tuple(range(1, 101)), None, max_tokens=5),
    )
    scores = Method("", "random", None, seed=3).scores(prompt)
    assert scores is not None
    assert np.array_equal(scores, Method("", "random", None, seed=3).scores(prompt))  # type: ignore[arg-type]
    assert not np.array_equal(scores, Method("", "random", None, seed=4).scores(prompt))  # type: ignore[arg-type]
    assert not np.array_equal(scores, Method("", "random", None, seed=3).scores(other))  # type: ignore[arg-type]
    assert 0.3 < scores.mean() < 0.7
    assert Method("", "keep", KeepSchedule.parse("3:0.5")).scores(prompt) is None


@pytest.fixture(scope="module")
def engine(tiny_model: TinyModel) -> Iterator[Engine]:
    path = str(tiny_model(TinyConfig(n_ctx_train=2048, n_layer=10))[0])
    with Engine(path, ModelOptions(n_threads=1)) as opened:
        yield opened


@pytest.mark.parametrize("kind", ["random", "recent", "static", "paper"])
def test_a_baseline_does_the_share_of_work_that_it_promises(engine: Engine, kind: str) -> None:
    (method,) = made([], (kind,), engine.shape, share=0.4)
    prompt = TaskPrompt(tuple(3 + i % 256 for i in range(1000)), (950, 990), max_tokens=4)
    answer = engine.reader(method).answer(prompt)
    assert answer.token_share == pytest.approx(method.promised_share, abs=0.02)
    if kind != "paper":
        assert method.promised_share == pytest.approx(0.4)
        assert answer.revived == 0


def test_recent_keeps_the_sinks_and_the_newest_tokens(engine: Engine) -> None:
    (method,) = made([], ("recent",), engine.shape, share=0.2)
    reader = engine.reader(method)
    ids = tuple(3 + i % 256 for i in range(500))
    logits, answer = reader.follow(TaskPrompt(ids, None, max_tokens=4), (5,))
    assert answer.kept[-1] == 100
    # what is dropped has no part in the answer: other tokens in its place give the same logits
    changed = (*ids[:4], *(17 for _ in range(400)), *ids[404:])
    assert np.array_equal(reader.follow(TaskPrompt(changed, None, max_tokens=4), (5,))[0][0], logits[0])
    touched = (*ids[:404], 17, *ids[405:])
    assert not np.array_equal(reader.follow(TaskPrompt(touched, None, max_tokens=4), (5,))[0][0], logits[0])


def test_random_reads_the_question(engine: Engine) -> None:
    (method,) = made([], ("random",), engine.shape, share=0.2)
    reader = engine.reader(method)
    prompt = TaskPrompt(tuple(3 + i % 256 for i in range(500)), (440, 490), max_tokens=4)
    scores = method.scores(prompt)
    assert scores is not None
    kept = np.argsort(-scores)[:96]  # and the four sinks
    assert set(range(440, 500)) <= set(kept.tolist())
    assert reader.answer(prompt).kept[-1] == 100


@pytest.mark.parametrize("keep", ["off", "2:0.5"])
def test_an_engine_that_looks_for_sources_gives_the_same_answers(tiny_model: TinyModel, keep: str) -> None:
    path = str(tiny_model(TinyConfig(n_ctx_train=2048, n_layer=10))[0])
    content = "\n".join(f"line {i} says that {i * 7} is it." for i in range(40)) + "\n\nwhat says line 9?"
    answers = []
    for n_sources in (0, 2):
        with Engine(path, ModelOptions(n_threads=1), n_sources) as opened:
            prompt = opened.prompter.prompt(content, Wording(), 6, min_tokens=6)
            answers.append(opened.reader(made([keep], (), opened.shape)[0]).answer(prompt))
            assert opened.settings.get("n_sources", 0) == n_sources
    plain, watched = answers
    assert plain.pred == watched.pred and plain.kept == watched.kept
    assert plain.sources is None and watched.sources is not None and len(watched.sources) == 2
    assert all(source in content and "what says" not in source for source in watched.sources)
