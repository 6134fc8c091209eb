"""``LazyModel.sources``: what an answer leaned on, on tiny models whose weights are random."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest
from reference import Reference
from tiny_gguf import TinyConfig

from lazygguf import KeepSchedule, LazyModel, PruningPoint, Source, Stats
from lazygguf.read.prompt import Prompt

QUESTION_ASKS = KeepSchedule(
    (PruningPoint(1, 0.8, n_query="question", query_max=True, pool=3), PruningPoint(3, 0.5, ((2, 1), (3, 0)), pool=3)),
    min_prompt=0,
    dense_unasked=True,
)
DOCUMENT = "\n".join(f"line {i} of the text is here.\n" for i in range(12))
CHAT = [
    {"role": "system", "content": "the system says a line of the text"},
    {"role": "user", "content": f"{DOCUMENT}\nthe cat sat?"},
    {"role": "assistant", "content": "an answer of the text"},
    {"role": "user", "content": "where is line 7?"},
]
ANSWER: Any = {"max_tokens": 4, "temperature": 0}


@pytest.fixture(params=["off", "points", "short", "draft"])
def any_model(request: pytest.FixtureRequest, path: str, tiny_model: Any) -> Iterator[LazyModel]:
    settings: dict[str, dict[str, Any]] = {
        "off": {"keep": "off"},
        "points": {"keep": QUESTION_ASKS},
        "short": {"keep": "1:0.5"},  # min_prompt is above the prompts here: they are read densely
        "draft": {"keep": KeepSchedule.parse("-1:0.5", min_prompt=0)},
    }
    options = settings[request.param]
    if request.param == "draft":
        options["draft"] = str(tiny_model(TinyConfig(tokenizer="bpe", n_embd=32, n_ff=32, n_ctx_train=512, seed=5))[0])
    with LazyModel(path, n_threads=1, n_ubatch=32, **options) as opened:
        yield opened


def check(found: list[Source], text: str, question: str, message: Optional[int] = None) -> None:
    """Spans are in range, apart, outside the question, with the right lines; the best comes first."""
    assert found
    free = np.ones(len(text), bool)
    free[text.rindex(question) : text.rindex(question) + len(question)] = False
    for source in found:
        assert source.message == message
        assert 0 <= source.start < source.end <= len(text) and source.text == text[source.start : source.end]
        assert free[source.start : source.end].all()
        free[source.start : source.end] = False
        assert len(source.text.split()) <= 60
        assert source.first_line == text[: source.start].count("\n") + 1
        assert source.last_line == text[: source.end].count("\n") + 1
        assert 0 < source.score <= 1
    scores = [source.score for source in found]
    assert scores == sorted(scores, reverse=True)


def test_a_chat_has_sources_in_what_the_user_gave(any_model: LazyModel) -> None:
    any_model.create_chat_completion(CHAT, **ANSWER)
    found = any_model.sources()
    assert len(found) == 3
    check(found, CHAT[1]["content"], "the cat sat?", message=1)


def test_a_restored_session_has_sources_from_its_next_answer_on(any_model: LazyModel, tmp_path: Path) -> None:
    any_model.create_chat_completion(CHAT, **ANSWER)
    any_model.save_session(tmp_path / "session")
    any_model.load_session(tmp_path / "session")
    with pytest.raises(RuntimeError, match="there is no answer in the context"):
        any_model.sources()
    answered = [*CHAT, {"role": "assistant", "content": "here."}, {"role": "user", "content": "and line 3?"}]
    any_model.create_chat_completion(answered, **ANSWER)
    assert any_model.sources()


@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_a_completion_has_sources_in_its_prompt(any_model: LazyModel, line_end: str) -> None:
    prompt = f"{DOCUMENT}\n\u6c34 \U0001f600 is it.\n\nwhere is line 7?".replace("\n", line_end)
    any_model.create_completion(prompt, **ANSWER)
    found = any_model.sources(20)
    check(found, prompt, "where is line 7?")
    assert any("\U0001f600" in source.text for source in found)
    assert any_model.sources(1) == found[:1]


def test_tokens_have_sources_in_the_text_that_they_are(any_model: LazyModel) -> None:
    ids = any_model.tokenize(f"{DOCUMENT}\nwhere is line 7?".encode())
    next(any_model.generate(ids))
    check(any_model.sources(), any_model.detokenize(ids, special=True).decode(), "where is line 7?")


def test_an_answer_is_the_same_whether_sources_are_asked_for_or_not(any_model: LazyModel) -> None:
    def answers(asks: bool) -> list[Any]:
        any_model.reset()
        out = []
        for _ in range(2):
            result: Any = any_model.create_chat_completion(CHAT, **ANSWER)
            out.append(result["choices"][0]["message"]["content"])
            if asks:
                any_model.sources()
        return [*out, any_model.logits]

    assert all(np.array_equal(a, b) for a, b in zip(answers(False), answers(True)))


def test_an_answer_that_is_given_again_has_the_same_sources(any_model: LazyModel) -> None:
    any_model.create_chat_completion(CHAT, **ANSWER)
    first = any_model.sources()
    any_model.create_chat_completion(CHAT, **ANSWER)
    assert any_model.sources() == first


def test_stats_hold_what_was_asked_for(any_model: LazyModel) -> None:
    any_model.create_chat_completion(CHAT, **ANSWER)
    assert any_model.stats.sources == []
    found = any_model.sources(2)
    assert any_model.stats.sources == found
    assert any_model.stats.to_dict()["sources"] == [source.to_dict() for source in found]
    assert Stats.from_dict(any_model.stats.to_dict()) == any_model.stats
    any_model.create_chat_completion(CHAT, **ANSWER)
    assert any_model.stats.sources == []


@pytest.mark.parametrize("n", [0, -1, True, 1.5, "3", None])
def test_a_number_of_sources_that_is_none_is_refused(model: LazyModel, n: Any) -> None:
    with pytest.raises(ValueError, match=r"n is .*, expected an integer in \[1, "):
        model.sources(n)


def test_without_an_answer_there_are_no_sources(model: LazyModel) -> None:
    def refused() -> bool:
        with pytest.raises(RuntimeError, match="there is no answer in the context; call create_chat_completion or"):
            model.sources()
        return True

    assert refused()
    chunks = model.create_chat_completion(CHAT, stream=True, **ANSWER)
    assert refused()  # nothing was read yet
    next(chunks)
    assert model.sources()
    chunks.close()
    model.eval([5, 6, 7])
    assert refused()  # the context went on without the answer
    model.create_completion(DOCUMENT, **ANSWER)
    assert model.sources()
    model.reset()
    assert refused()


def test_a_short_question_alone_has_no_sources(any_model: LazyModel) -> None:
    any_model.create_chat_completion([{"role": "user", "content": "where is it?"}], **ANSWER)
    assert any_model.sources() == []


def test_a_dense_session_is_watched_where_the_model_usually_prunes(tiny_model: Callable[..., tuple[Path, Any]]) -> None:
    """Layer 4 of 6 is the last point of the careful default; its attention is what the reference has there."""
    config = TinyConfig(tokenizer="bpe", n_ctx_train=512, n_layer=6)
    path, weights = tiny_model(config)
    ids = list(range(3, 83))
    with LazyModel(path, n_threads=1, keep="off", type_k="f32", type_v="f32") as model:
        assert len(list(zip(model.generate(ids, temp=0), range(3)))) == 3
        attended = model._ready().attended(Prompt(ids))
    reference = Reference(weights, config)
    reference.eval(ids)
    mean = reference.attention[4].mean(axis=0)  # (n_asking, n_tokens), over the heads
    best = mean[56:].max(axis=0)  # the question is not known: the last 24 ask
    assert attended is not None and attended.pool == 21 and np.abs(attended.scores - best).max() < 1e-5
