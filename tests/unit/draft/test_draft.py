"""Reading with a draft model: tiny models of two vocabularies, and what each is asked to read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from tiny_gguf import TinyConfig

from lazygguf import Cancelled, KeepSchedule, LazyModel
from lazygguf._ffi import NativeSession
from lazygguf.draft.draft import Draft, DraftModel
from lazygguf.draft.rules import SecondLook
from lazygguf.model.options import ModelOptions
from lazygguf.model.parts import draft_options
from lazygguf.read.attention import AttentionReader
from lazygguf.read.scores import pooled
from lazygguf.schedule.scoring import ScoringProfile
from lazygguf.text.offsets import shared_max, spans_of, token_spans
from lazygguf.text.tokenizer import Tokenizer

Write = Callable[[TinyConfig], tuple[Path, Any]]

TARGET = TinyConfig(tokenizer="bpe", n_embd=128, n_ff=256, n_ctx_train=2048)
SMALL = TinyConfig(tokenizer="spm", n_embd=32, n_ff=32, n_layer=4, n_ctx_train=1024, seed=5)
KEEP = KeepSchedule.parse("-1:0.3", min_prompt=0)
TEXT = "the cat sat on the mat and the dog ran to the door of the house. " * 6
QUESTION = "where did the dog run?"
ASKED = f"{TEXT}{TEXT}\n\n{QUESTION}"  # long enough for a document with a question at its end
PROFILE = ScoringProfile((1, 2), over_query="max", pool=(2, 1))


@pytest.fixture(scope="module")
def target(tiny_model: Write) -> str:
    return str(tiny_model(TARGET)[0])


@pytest.fixture(scope="module", params=["spm", "bpe"])
def small(request: pytest.FixtureRequest, tiny_model: Write) -> str:
    config = SMALL if request.param == "spm" else TinyConfig(**{**vars(SMALL), "tokenizer": "bpe"})
    return str(tiny_model(config)[0])


@pytest.fixture
def drafted(target: str, small: str) -> Iterator[LazyModel]:
    with LazyModel(target, draft=small, keep=KEEP, scoring=PROFILE, n_threads=1, n_ubatch=32, second_look=0) as model:
        yield model


def ask(model: LazyModel, *contents: str) -> str:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]
    result: Any = model.create_chat_completion(messages, temperature=0, max_tokens=2)
    return str(result["choices"][0]["message"]["content"])


def read(model: LazyModel) -> set[int]:
    """Positions that the large model has read."""
    assert model._context is not None and model._context._session is not None
    session: Any = model._context._session
    return set(session.cached(0).tolist())


def open_draft(path: str, tokenizer: Tokenizer, **more: Any) -> tuple[Draft, LazyModel]:
    model = LazyModel(path, n_threads=1, keep="off")
    opened = replace(model.as_draft(PROFILE), **more)
    return Draft(opened, tokenizer), model


def test_scores_are_the_attention_of_the_question_over_the_drafts_own_tokens(target: str, small: str) -> None:
    tokenizer = Tokenizer(target)
    draft, model = open_draft(small, tokenizer)
    text = f"{TEXT}\n\n{QUESTION}".encode()
    ids = tokenizer.tokenize(text, add_bos=False)
    pieces = [tokenizer.piece(token, special=True) for token in ids]
    begin = next(i for i in range(len(ids)) if b"".join(pieces[:i]).endswith(b"\n\n"))
    found = draft.score(ids, (begin, len(ids)))

    own = model.tokenize(text, add_bos=True)
    spans = token_spans(text, [b"" if token == model.token_bos() else model._tokenizer.piece(token) for token in own])
    first = next(i for i, (_, end) in enumerate(spans.tolist()) if end > len(text) - len(QUESTION))
    with AttentionReader(model._parts.weights, 3, n_threads=1) as reader:
        rows = reader.read(own, (first, len(own)), [1, 2], by_head=True)
    best = rows.mean(axis=2).max(axis=(0, 1))
    around = np.array([best[max(0, i - 2) : i + 2].mean() for i in range(len(best))])
    np.testing.assert_allclose(found.scores, shared_max(around.astype("f4"), spans, spans_of(pieces)), rtol=1e-4)
    assert (found.n_read, found.n_windows) == (len(own), 1)
    draft.close()
    model.close()
    tokenizer.close()


def test_the_next_question_costs_the_draft_the_question_alone(target: str, small: str) -> None:
    tokenizer = Tokenizer(target)
    draft, model = open_draft(small, tokenizer)
    whole = tokenizer.tokenize(f"{TEXT}\n\n{QUESTION}".encode(), add_bos=False)
    other = tokenizer.tokenize(f"{TEXT}\n\nwho sat there?".encode(), add_bos=False)
    draft.score(whole, (len(whole) - 5, len(whole)))
    second = draft.score(other, (len(other) - 4, len(other)))
    fresh, again = open_draft(small, tokenizer)
    expected = fresh.score(other, (len(other) - 4, len(other)))
    assert second.n_read < 40 < expected.n_read
    np.testing.assert_allclose(second.scores, expected.scores, rtol=2e-2, atol=1e-5)
    for each in (draft, fresh, model, again, tokenizer):
        each.close()


def test_a_prompt_longer_than_the_drafts_context_is_seen_whole(target: str, small: str) -> None:
    tokenizer = Tokenizer(target)
    draft, model = open_draft(small, tokenizer, n_ctx=512)
    ids = tokenizer.tokenize(f"{TEXT * 5}\n\n{QUESTION}".encode(), add_bos=False)
    seen: list[tuple[int, int]] = []
    found = draft.score(ids, (len(ids) - 6, len(ids)), lambda done, total: seen.append((done, total)))
    assert found.n_windows > 1
    assert np.isfinite(found.scores).all()
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1] == found.n_read
    assert draft._reader.ids == []  # what no later window begins with is not kept
    for each in (draft, model, tokenizer):
        each.close()


@pytest.mark.parametrize(("before", "after"), [(0, 0), (2, 1), (3, 3), (100, 100)])
def test_averages_are_over_the_tokens_that_there_are(before: int, after: int) -> None:
    values = np.random.default_rng(0).random(17).astype(np.float32)
    expected = [values[max(0, i - before) : i + after + 1].mean() for i in range(17)]
    np.testing.assert_allclose(pooled(values, before, after), expected, rtol=1e-5)


def test_the_large_model_reads_what_the_draft_wants_the_question_and_the_template(drafted: LazyModel) -> None:
    ask(drafted, ASKED)
    stats = drafted.stats
    prompt = drafted.chat_template.render([{"role": "user", "content": ASKED}]).prompt
    assert prompt.query_span is not None and prompt.protect
    was_read = read(drafted) & set(range(len(prompt.ids)))
    assert set(range(*prompt.query_span)) <= was_read
    assert set(prompt.protect) <= was_read
    assert len(was_read) == int(0.3 * len(prompt.ids))
    assert stats.draft_note == ""
    assert stats.n_draft > 0 and stats.draft_s > 0 and stats.draft_share > 0
    assert stats.skim_share == pytest.approx(1 - len(was_read) / len(prompt.ids))
    assert stats.prefill_s >= stats.draft_s and stats.ttft_s >= stats.prefill_s


def test_a_later_question_reads_other_parts_at_their_places(drafted: LazyModel) -> None:
    first = ask(drafted, ASKED)
    before = read(drafted)
    ask(drafted, ASKED, first, "and what is the cat on?")
    stats = drafted.stats
    assert stats.n_reused > 0
    assert stats.n_draft < 100  # the question, and the answer before it
    brought = [pos for pos in read(drafted) - before if pos < stats.n_reused]
    assert brought
    drafted._context.reader.revives = False  # type: ignore[union-attr]
    before = read(drafted)
    ask(drafted, ASKED, first, "and where is the house of the dog?")
    assert not [pos for pos in read(drafted) - before if pos < drafted.stats.n_reused]


def test_marked_headings_are_always_read(target: str, small: str) -> None:
    text = "# one\n" + TEXT + "\n## two\n" + TEXT + "\nno # heading\n" + TEXT
    with LazyModel(target, draft=small, keep="-1:0.1", n_threads=1, headings="#+ ", second_look=0) as model:
        ask(model, f"{text}\n\n{QUESTION}")
        ids = model.chat_template.render([{"role": "user", "content": f"{text}\n\n{QUESTION}"}]).prompt.ids
        pieces = [model._tokenizer.piece(token, special=True) for token in ids]
        was_read = read(model)
        said = b"".join(piece if i in was_read else b"\x00" for i, piece in enumerate(pieces))
        assert b"# one\n" in said and b"## two\n" in said
        assert b"no # heading" not in said


def test_a_model_can_be_the_draft_and_stays_its_owners(target: str, small: str) -> None:
    with LazyModel(small, n_threads=1, keep="off", n_ctx=600) as owner:
        with LazyModel(target, draft=owner, keep=KEEP, n_threads=1) as model:
            ask(model, ASKED)
            assert model.stats.n_draft > 0
            with pytest.raises(RuntimeError, match="sessions of this model are open"):
                owner._parts.weights.close()
        assert owner.create_completion("the cat", max_tokens=2)


@pytest.mark.parametrize(
    ("options", "note"),
    [
        ({"keep": "-1:0.3"}, "not run: 40 tokens are below min_prompt 256"),
        ({"keep": "2:0.5"}, 'not run: the keep schedule has no pruning point before layer 0 such as "-1:0.2"'),
        ({"keep": "off"}, 'not run: the keep schedule has no pruning point before layer 0 such as "-1:0.2"'),
    ],
)
def test_where_a_draft_cannot_pay_it_does_not_run_and_stats_say_why(
    target: str, small: str, options: dict[str, Any], note: str
) -> None:
    with LazyModel(target, draft=small, n_threads=1, **options) as model:
        model.eval(list(range(3, 43)))
        assert model.stats.draft_note == note
        assert (model.stats.n_draft, model.stats.skim_share, model.stats.token_share) == (0, 0.0, 1.0)


def test_a_draft_that_is_nearly_as_large_is_named_in_the_stats_and_not_opened(target: str) -> None:
    with LazyModel(target, draft=target, keep="-1:0.3", n_threads=1) as model:
        ask(model, f"{TEXT}\n\n{QUESTION}")
        assert model.stats.draft_note == (
            "not run: the model is 1.0 times as large as the draft, expected at least 3 times"
        )
        assert model.stats.token_share == 1.0
        assert "draft" not in vars(model._parts)


def test_with_a_draft_auto_chooses_before_layer_0(target: str, small: str) -> None:
    with LazyModel(target, draft=small, n_threads=1) as model:
        assert str(model.schedule) == "-1:0.2"
    with LazyModel(target, draft=target, n_threads=1) as model:
        assert model.schedule is not None and model.schedule.entry is None


def test_with_a_draft_auto_reads_text_that_asks_nothing_as_a_whole(target: str, small: str) -> None:
    with LazyModel(target, draft=small, n_threads=1) as model:
        model.eval(model.tokenize(ASKED.encode()))
        assert model.stats.draft_note == "not run: the prompt asks nothing"
        assert model.stats.token_share == 1.0
        model.reset()
        ask(model, ASKED)
        assert model.stats.draft_note == "" and model.stats.n_draft > 0


def test_eval_scores_a_prompt_and_not_a_single_token(drafted: LazyModel) -> None:
    ids = drafted.tokenize(TEXT.encode())
    drafted.eval(ids)
    assert drafted.stats.n_draft > 0
    assert drafted.stats.kept == [int(0.3 * len(ids))]
    drafted.eval([ids[0]])
    assert drafted.stats.n_draft == 0
    drafted.reset()
    drafted.eval(ids, scores=np.arange(float(len(ids))))  # the caller's own scores
    assert drafted.stats.n_draft == 0
    assert max(set(range(len(ids))) - read(drafted)) < 0.75 * len(ids)


def test_both_parts_tell_their_progress_and_can_be_stopped(drafted: LazyModel) -> None:
    skimmed: list[tuple[int, int]] = []
    seen: list[tuple[int, int]] = []
    drafted.skim_callback = lambda *n: skimmed.append(n)
    drafted.progress_callback = lambda *n: seen.append(n)
    ids = drafted.tokenize(TEXT.encode())
    drafted.eval(ids)
    assert skimmed and skimmed[-1][0] == skimmed[-1][1]
    assert seen[-1] == (len(ids), len(ids))
    for name in ("skim_callback", "progress_callback"):
        drafted.reset()
        setattr(drafted, name, lambda *n: drafted.cancel())
        with pytest.raises(Cancelled):
            drafted.eval(ids)
        assert drafted.n_tokens == 0
        setattr(drafted, name, None)
    drafted.eval(ids)
    assert drafted.n_tokens == len(ids)


def test_a_wrong_draft_is_refused_in_one_line(target: str, small: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LazyModel(target, draft=tmp_path / "none.gguf")
    with pytest.raises(TypeError, match=r"draft is 3, expected text or a pathlib\.Path or a LazyModel"):
        LazyModel(target, draft=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="scoring profile: layer is 9, expected at most 3"):
        LazyModel(target, draft=small, scoring=ScoringProfile((9,)))
    short = "the draft's context is 256 tokens, expected at least 512"
    with pytest.raises(ValueError, match=short), LazyModel(small, n_ctx=256, keep="off") as owner:
        LazyModel(target, draft=owner)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"n_gpu_layers": 5, "device": "A0"}, (5, "A0")),
        ({"n_gpu_layers": 5, "device": "A0", "n_gpu_layers_draft": 0}, (0, None)),
        ({"n_gpu_layers_draft": "all"}, ("all", None)),
        ({"n_gpu_layers": 5, "rpc_servers": "a:1"}, (0, None)),
        ({"n_gpu_layers": 5, "rpc_servers": "a:1", "n_gpu_layers_draft": 2}, (2, None)),
    ],
)
def test_a_draft_lies_where_it_is_told_and_never_on_another_machine(
    small: str, given: dict[str, Any], expected: tuple[Any, Any]
) -> None:
    options = draft_options(ModelOptions(draft=small, **given))
    assert (options.n_gpu_layers, options.device, options.rpc_servers) == (*expected, None)


@pytest.mark.parametrize("draft", [None, "a model"])
def test_layers_of_a_draft_that_is_not_opened_are_refused(target: str, small: str, draft: Any) -> None:
    with LazyModel(small, keep="off") as owner, pytest.raises(ValueError, match="n_gpu_layers_draft is given, but no"):
        LazyModel(target, draft=draft and owner, n_gpu_layers_draft=0)


def test_a_draft_model_of_ours_is_closed_with_the_model(target: str, small: str) -> None:
    model = LazyModel(target, draft=small, n_threads=1)
    draft = model._parts.draft
    assert isinstance(draft, DraftModel)
    model.close()
    with pytest.raises(RuntimeError, match="the model is closed"):
        draft.tokenizer.tokenize(b"a")


def test_a_number_of_which_an_earlier_question_left_a_part_unread_is_read_as_a_whole(drafted: LazyModel) -> None:
    first = ask(drafted, ASKED)
    before = read(drafted)
    session: Any = drafted._context._session  # type: ignore[union-attr]
    forgotten: list[int] = []
    forget = NativeSession.forget

    def noted(self: Any, positions: Any) -> None:
        forgotten.extend(np.asarray(positions).tolist())
        forget(self, positions)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NativeSession, "forget", noted)
        ask(drafted, ASKED, first, "and what is the cat on?")
    assert forgotten and set(forgotten) <= before
    fresh = read(drafted) - before
    for pos in forgotten:  # each follows something that was read now
        assert any(other in fresh for other in range(pos - 32, pos))
    assert set(forgotten) <= set(session.live(0).tolist())  # what the session selects is what was foreseen


# ---- the second look


@pytest.fixture
def never_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every first token is too doubtful."""
    monkeypatch.setattr("lazygguf.model.parts.SecondLook", partial(SecondLook, max_entropy=0.0))


@pytest.fixture
def doubtful(target: str, small: str, never_sure: None) -> Iterator[LazyModel]:
    """Looks again after every prompt."""
    with LazyModel(target, draft=small, keep=KEEP, n_threads=1, second_look=0.1) as model:
        yield model


def test_a_second_look_reads_a_bounded_number_of_tokens_and_the_question_again(doubtful: LazyModel) -> None:
    ask(doubtful, ASKED)
    stats, n_prompt = doubtful.stats, doubtful.stats.n_prompt
    assert stats.second_look == int(0.1 * n_prompt)
    was_read = read(doubtful) & set(range(n_prompt))
    assert len(was_read) == int(0.3 * n_prompt) + stats.second_look
    prompt = doubtful.chat_template.render([{"role": "user", "content": ASKED}]).prompt
    assert prompt.query_span is not None
    n_again = n_prompt - prompt.query_span[0]
    n_computed = round(stats.token_share * n_prompt)
    assert len(was_read) + n_again <= n_computed <= 2 * len(was_read) + n_again  # some beside the gaps once more
    assert doubtful.n_tokens >= n_prompt
    doubtful.create_chat_completion([{"role": "user", "content": ASKED}], max_tokens=1)  # all there
    assert doubtful.stats.n_draft == 0


def test_what_a_second_look_reads_is_what_the_draft_wanted_next(
    target: str, small: str, never_sure: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lazygguf.draft.rules.MIN_RUN", 1)  # what is a fragment depends on how much is read at once
    with LazyModel(target, draft=small, keep=KEEP, n_threads=1, second_look=0.1) as model:
        ids = model.tokenize(ASKED.encode())
        model.eval(ids)
        looked = read(model)
    wider = KeepSchedule.parse("-1:0.4", min_prompt=0)
    with LazyModel(target, draft=small, keep=wider, n_threads=1, second_look=0) as model:
        model.eval(ids)
        at_once = read(model)
    assert len(looked ^ at_once) <= 2  # rounding of the two shares
    with LazyModel(target, draft=small, keep=wider, n_threads=1, second_look=0) as model:
        model.eval(ids)
        expected = model.logits
    assert expected is not None and np.isfinite(expected).all()


def test_a_second_look_that_fails_leaves_the_context_as_it_was(
    doubtful: LazyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = doubtful.tokenize(ASKED.encode())
    doubtful.eval(ids[:300])
    assert doubtful.stats.second_look > 0
    session: Any = doubtful._context._session  # type: ignore[union-attr]
    plain, calls = type(session).eval, iter(range(10))

    def fail_the_second_time(self: Any, *args: Any, **more: Any) -> Any:
        if self is session and next(calls) == 1:
            raise Cancelled("cancelled")
        return plain(self, *args, **more)

    monkeypatch.setattr(type(session), "eval", fail_the_second_time)
    with pytest.raises(Cancelled):
        doubtful.eval(ids[300:])
    assert doubtful.n_tokens == 300
    monkeypatch.undo()
    doubtful.eval(ids[300:])
    assert doubtful.n_tokens == len(ids)


def test_a_pruning_point_inside_the_model_shows_its_edges_to_the_second_look(
    target: str, small: str, never_sure: None
) -> None:
    both = KeepSchedule.parse("-1:0.3,2:0.1", min_prompt=0, n_query="question")
    with LazyModel(target, draft=small, keep=both, n_threads=1, second_look=0.1) as model:
        ask(model, ASKED)
        assert model.stats.second_look > 0
        assert len(model.stats.kept) == 2 and model.stats.kept[1] < model.stats.kept[0]


def test_a_draft_is_never_read_on_another_machine() -> None:
    asked = ModelOptions(n_gpu_layers=-1, rpc_servers="127.0.0.1:50052", weights="as-is")
    used = draft_options(asked)
    assert (used.rpc_servers, used.n_gpu_layers, used.weights) == (None, 0, "fast")
    assert draft_options(ModelOptions(n_gpu_layers=-1)).n_gpu_layers == -1
