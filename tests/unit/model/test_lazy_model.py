"""LazyModel on a tiny model: the calls of llama_cpp.Llama, and what must happen when they go wrong."""

from __future__ import annotations

import copy
import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import llama_cpp
import numpy as np
import pytest
from tiny_gguf import TinyConfig

from lazygguf import Cancelled, ContextFullError, KeepSchedule, LazyModel, PruningPoint, Stats
from lazygguf.draft.rules import n_wanted
from lazygguf.errors import LazyError

Llama: Any = vars(llama_cpp)["Llama"]  # its own annotations are partial

TEXT = "the cat sat on the mat and the dog ran to the door of the house " * 3
SCHEDULE = KeepSchedule.parse("1:0.5,3:0.25", min_prompt=0)


@pytest.fixture(scope="module")
def path(tiny_model: Callable[[TinyConfig], tuple[Path, Any]]) -> str:
    return str(tiny_model(TinyConfig(tokenizer="bpe", n_ctx_train=512))[0])


@pytest.fixture
def dense_model(path: str) -> Iterator[LazyModel]:
    # what a lazy context computes depends on what was asked of it before; dense it does not
    with LazyModel(path, n_threads=1, n_ubatch=32, keep="off", type_k="f32", type_v="f32") as opened:
        yield opened


@pytest.fixture
def model(path: str) -> Iterator[LazyModel]:
    with LazyModel(path, n_threads=1, keep=SCHEDULE) as opened:
        yield opened


def greedy(model: LazyModel, prompt: Any = TEXT, **options: Any) -> str:
    result = model.create_completion(prompt, **{"temperature": 0, "max_tokens": 12, **options})
    return str(result["choices"][0]["text"])


def streamed(model: LazyModel, prompt: Any = TEXT, **options: Any) -> str:
    asked = {"temperature": 0, "max_tokens": 12, **options}
    return "".join(chunk["choices"][0]["text"] for chunk in model.create_completion(prompt, stream=True, **asked))


# ---- what works


def test_tokens_are_llama_cpps(model: LazyModel, path: str) -> None:
    theirs = Llama(path, vocab_only=True, verbose=False)
    for text in ("hello world", "héllo 世界 😀\n\n  x", "<|im_start|>user", "a\0b", ""):
        for special in (False, True):
            ids = model.tokenize(text.encode(), special=special)
            assert ids == theirs.tokenize(text.encode(), special=special)
            assert model.detokenize(ids) == theirs.detokenize(ids)
            assert model.detokenize(ids, special=True) == theirs.detokenize(ids, special=True)
    assert (model.token_bos(), model.token_eos(), model.token_nl()) == (
        theirs.token_bos(),
        theirs.token_eos(),
        theirs.token_nl(),
    )
    assert model.n_vocab() == theirs.n_vocab()


def test_a_program_written_for_llama_cpp_gets_the_same_keys(path: str) -> None:
    with LazyModel(path, n_threads=1, keep="off") as ours:
        theirs = Llama(path, n_ctx=512, verbose=False, n_threads=1)
        messages = [{"role": "user", "content": "the cat"}]
        calls: list[Callable[[Any], Any]] = [
            lambda m: m.create_completion("the cat", max_tokens=3, temperature=0),
            lambda m: m("the cat", max_tokens=3, temperature=0),
            lambda m: m.create_chat_completion(messages, max_tokens=3, temperature=0),
            lambda m: list(m.create_completion("the cat", max_tokens=3, temperature=0, stream=True))[-1],
            lambda m: next(iter(m.create_chat_completion(messages, max_tokens=3, temperature=0, stream=True))),
            lambda m: list(m.create_chat_completion(messages, max_tokens=3, temperature=0, stream=True))[-1],
        ]
        for ask in calls:
            mine, expected = ask(ours), ask(theirs)
            assert mine.keys() == expected.keys()
            assert mine["choices"][0].keys() == expected["choices"][0].keys()
            for key in ("object", "model", "usage"):
                assert mine.get(key) == expected.get(key)
            assert mine["choices"][0]["finish_reason"] == expected["choices"][0]["finish_reason"]


def test_dense_greedy_text_is_llama_cpps(path: str) -> None:
    theirs = Llama(path, n_ctx=512, verbose=False, n_threads=1)
    with LazyModel(path, n_threads=1, keep="off", type_k="f32", type_v="f32") as ours:
        ids = ours.tokenize(TEXT.encode())
        assert [t for t, _ in zip(ours.generate(ids, temp=0), range(12))] == [
            t for t, _ in zip(theirs.generate(ids, temp=0), range(12))
        ]


def test_eval_reads_on_and_logits_are_the_last_tokens(model: LazyModel) -> None:
    assert model.logits is None and model.n_tokens == 0
    model.eval(model.tokenize(TEXT.encode()))
    first = model.logits
    assert first is not None and first.shape == (model.n_vocab(),) and first.dtype == np.float32
    model.eval([5])
    assert not np.array_equal(first, model.logits)
    assert model.stats.n_reused == model.n_tokens - 1
    model.reset()
    assert model.logits is None and model.n_tokens == 0


def test_the_same_text_again_gives_the_same_logits(model: LazyModel) -> None:
    ids = model.tokenize(TEXT.encode())
    found = []
    for _ in range(2):
        model.reset()
        model.eval(ids)
        found.append(model.logits)
    np.testing.assert_array_equal(found[0], found[1])


def test_the_stream_joins_to_the_unstreamed_text(model: LazyModel) -> None:
    for seed in range(3):
        options = {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": seed, "max_tokens": 60}
        model.reset()
        whole = greedy(model, **options)
        model.reset()
        assert streamed(model, **options) == whole


def test_a_stop_string_ends_the_text(model: LazyModel) -> None:
    options = {"temperature": 1.5, "seed": 1, "max_tokens": 60}
    whole = greedy(model, **options)
    stop = whole[3:5]
    model.reset()
    assert greedy(model, stop=[stop], **options) == whole[: whole.index(stop)]


def test_a_models_seed_makes_its_answers_repeatable(path: str) -> None:
    said = []
    for seed in (3, 3, 4):
        with LazyModel(path, n_threads=1, seed=seed) as model:
            said.append([greedy(model, temperature=1.5) for _ in range(2)])
    assert said[0] == said[1] != said[2]


def test_stats_tell_what_was_read(model: LazyModel) -> None:
    greedy(model)
    stats = model.stats
    n = len(model.tokenize(TEXT.encode()))
    assert (stats.n_prompt, stats.n_reused, stats.n_decoded) == (n, 0, 12)
    assert stats.kept == [n, int(0.5 * n), int(0.25 * n)]
    assert 0 < stats.token_share < 1
    assert stats.kv_bytes > 0 and stats.aux_bytes > 0 and stats.ttft_s >= stats.prefill_s > 0
    assert Stats.from_dict(stats.to_dict()) == stats


def test_a_longer_prompt_is_read_from_the_common_prefix(model: LazyModel) -> None:
    greedy(model)
    n = len(model.tokenize(TEXT.encode()))
    greedy(model, TEXT + "where is the cat?")
    assert model.stats.n_reused >= n - 1


def test_a_chat_asks_with_its_question(model: LazyModel) -> None:
    result = model.create_chat_completion(
        [{"role": "user", "content": TEXT * 3 + "\n\nwhere is the cat?"}],
        max_tokens=4,
        logprobs=True,
        top_logprobs=2,
    )
    content = result["choices"][0]["logprobs"]["content"]
    assert len(content) == 4 and all(len(entry["top_logprobs"]) == 2 for entry in content)


def test_json_comes_out_of_response_format(model: LazyModel) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    result = model.create_chat_completion(
        [{"role": "user", "content": "hi"}],
        temperature=0,
        max_tokens=200,
        response_format={"type": "json_object", "schema": schema},
        logit_bias={token: -5.0 for token in model.tokenize(b" \n\t", add_bos=False)},
    )
    assert result["choices"][0]["message"]["content"].replace(" ", "").startswith('{"a":')


def test_generate_yields_token_ids_until_the_caller_stops(model: LazyModel) -> None:
    ids = model.tokenize(TEXT.encode())
    tokens = [token for token, _ in zip(model.generate(ids, temp=0), range(12))]
    model.reset()
    assert model.detokenize(tokens).decode("utf-8", "replace").startswith(greedy(model)[:5])


def test_the_progress_callback_sees_the_whole_prompt(path: str) -> None:
    seen: list[tuple[int, int]] = []
    with LazyModel(path, n_threads=1, n_ubatch=32, progress_callback=lambda *n: seen.append(n)) as model:
        greedy(model)
        assert seen[-1] == (model.stats.n_prompt, model.stats.n_prompt)
    assert seen == sorted(seen) and len(seen) > 1


# ---- prompts that are not clean


@pytest.mark.parametrize("prompt", ["a\0b", "\ud800", "\ud83d\ude00", "x" * 300, "<|im_end|>", "\ufffd"])
def test_strange_text_is_read(model: LazyModel, prompt: str) -> None:
    assert model.create_completion(prompt, max_tokens=1)["usage"]["prompt_tokens"] > 0


def test_an_empty_prompt_begins_from_bos(model: LazyModel) -> None:
    assert model.create_completion("", max_tokens=1)["usage"]["prompt_tokens"] == 1


def test_an_empty_list_of_tokens_is_refused(model: LazyModel) -> None:
    for call in (model.eval, model.create_completion, model.generate):
        with pytest.raises(ValueError, match="empty"):
            call([])


def test_text_in_place_of_bytes_and_bytes_in_place_of_text_say_what_to_do(model: LazyModel) -> None:
    with pytest.raises(TypeError, match=r'pass text.encode\("utf-8"\)'):
        model.tokenize("text")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="prompt is bytes"):
        model.create_completion(b"text")


@pytest.mark.parametrize("ids", [[-1], [320], [2**40], [2**70], [3, -5]])
def test_token_ids_outside_the_vocabulary_are_refused(model: LazyModel, ids: list[int]) -> None:
    for call in (model.eval, model.detokenize, model.create_completion):
        with pytest.raises(ValueError, match="token id"):
            call(ids)
    assert model.n_tokens == 0


@pytest.mark.parametrize("ids", [[1.5], ["a"], [[1, 2]], [None]])
def test_token_ids_that_are_no_integers_are_refused(model: LazyModel, ids: Any) -> None:
    with pytest.raises(TypeError, match="token ids"):
        model.eval(ids)


# ---- limits


def test_a_prompt_longer_than_the_context_names_both_numbers(path: str) -> None:
    with LazyModel(path, n_ctx=32, n_threads=1) as model:
        n = len(model.tokenize(TEXT.encode(), special=True))
        for ask in (
            lambda: model.create_completion(TEXT),
            lambda: model.create_completion(TEXT, stream=True),
            lambda: model.eval(model.tokenize(TEXT.encode())),
            lambda: model.generate(model.tokenize(TEXT.encode())),
        ):
            with pytest.raises(ContextFullError, match=rf"Requested tokens \({n}\) exceed context window of 32"):
                ask()
        with pytest.raises(ValueError, match="--ctx-size"):
            model.create_chat_completion([{"role": "user", "content": TEXT}])
        assert model.n_tokens == 0


def test_a_generation_that_fills_the_context_ends_with_length(path: str) -> None:
    with LazyModel(path, n_ctx=32, n_threads=1) as model:
        result = model.create_completion("the cat", max_tokens=None, logit_bias={model.token_eos(): -100})
        choice, usage = result["choices"][0], result["usage"]
        assert choice["finish_reason"] == "length" and usage["total_tokens"] == 32


# ---- constructor


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_cxt": 5}, "'n_cxt', did you mean 'n_ctx'"),
        ({"n_ctx": -1}, "n_ctx is -1"),
        ({"n_ctx": 1.5}, "n_ctx is 1.5"),
        ({"n_ubatch": 0}, "n_ubatch is 0"),
        ({"n_threads": 0}, "n_threads is 0"),
        ({"n_threads": 10_000}, "n_threads is 10000"),
        ({"seed": -2}, "seed is -2"),
        ({"type_k": "q4_9"}, "type_k is 'q4_9'"),
        ({"keep": "9:2"}, "keep is 2"),
        ({"keep": "5:0.5"}, "il is 5, expected at most 4"),
        ({"max_revive": -3}, "max_revive is -3"),
        ({"second_look": 2}, "second_look is 2, expected a share in [0, 1]"),
        ({"headings": "("}, "headings is '(', expected a regular expression"),
        ({"logits_all": True}, "logits_all is True, expected False"),
        ({"flash_attn": False}, "flash_attn is False, expected True"),
        ({"chat_template": "{% for"}, "chat template"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(path: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        LazyModel(path, **options)
    assert message in str(caught.value)


def test_arguments_of_llama_cpp_that_say_what_is_done_anyway_are_accepted(path: str) -> None:
    with LazyModel(path, n_threads=1, flash_attn=True, logits_all=False, chat_format=None, n_batch=256) as model:
        assert greedy(model)


def test_a_missing_file_a_folder_and_a_file_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LazyModel(tmp_path / "none.gguf")
    with pytest.raises(IsADirectoryError):
        LazyModel(tmp_path)
    (tmp_path / "text.gguf").write_text("hello", encoding="utf-8")
    with pytest.raises(LazyError):
        LazyModel(tmp_path / "text.gguf")


def test_a_context_beyond_training_is_allowed_with_a_warning(path: str, caplog: pytest.LogCaptureFixture) -> None:
    with LazyModel(path, n_ctx=600, n_threads=1) as model:
        assert model.n_ctx() == 600
    assert "n_ctx is 600, above the 512" in caplog.text


def test_nothing_is_written_to_the_terminal(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    with LazyModel(path, n_threads=1) as model:
        greedy(model)
    assert capfd.readouterr() == ("", "")


# ---- life


def test_a_closed_model_says_so(path: str) -> None:
    model = LazyModel(path, n_threads=1)
    chunks = model.create_completion(TEXT, stream=True)
    next(chunks)
    model.close()
    model.close()
    for use in (
        lambda: model.eval([1]),
        lambda: model.logits,
        lambda: model.n_tokens,
        lambda: model.reset(),
        lambda: model.tokenize(b"x"),
        lambda: model.detokenize([1]),
        lambda: model.create_completion("x"),
        lambda: next(chunks),
    ):
        with pytest.raises(RuntimeError, match="closed"):
            use()
    model.cancel()


def test_a_model_cannot_be_pickled_or_copied(model: LazyModel) -> None:
    for act in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            act(model)


def test_a_half_consumed_stream_does_not_disturb_the_next_call(model: LazyModel) -> None:
    expected = greedy(model, "the dog ran")
    model.reset()
    old = model.create_completion(TEXT, stream=True, temperature=0)
    next(old)
    assert greedy(model, "the dog ran") == expected
    with pytest.raises(RuntimeError, match="used for something else"):
        list(old)


def test_a_closed_stream_leaves_the_model_consistent(dense_model: LazyModel) -> None:
    model = dense_model
    expected = greedy(model, max_tokens=20)
    model.reset()
    chunks = model.create_completion(TEXT, stream=True, temperature=0, max_tokens=20)
    next(chunks)
    next(chunks)
    chunks.close()
    assert greedy(model, max_tokens=20) == expected


@pytest.mark.parametrize("error", [KeyError("mine"), KeyboardInterrupt()])
def test_what_the_progress_callback_raises_is_raised_and_nothing_was_read(
    dense_model: LazyModel, error: BaseException
) -> None:
    model = dense_model
    expected = greedy(model)
    before = model.n_tokens

    def fail(n_done: int, n_total: int) -> None:
        raise error

    model.progress_callback = fail
    with pytest.raises(type(error)):
        model.eval(model.tokenize(TEXT.encode()))
    assert model.n_tokens == before
    model.progress_callback = None
    assert greedy(model) == expected


def test_cancelling_from_the_callback_stops_the_reading(path: str) -> None:
    with LazyModel(path, n_threads=1, n_ubatch=32) as model:
        model.progress_callback = lambda n_done, n_total: model.cancel()
        with pytest.raises(Cancelled):
            model.eval(model.tokenize(TEXT.encode()))
        assert model.n_tokens == 0
        model.progress_callback = None
        model.eval(model.tokenize(TEXT.encode()))


@pytest.mark.parametrize("name", ["reset", "close", "eval"])
def test_using_the_model_from_its_callback_is_refused(path: str, name: str) -> None:
    with LazyModel(path, n_threads=1) as model:
        args = ([1],) if name == "eval" else ()
        model.progress_callback = lambda n_done, n_total: getattr(model, name)(*args)
        with pytest.raises(RuntimeError, match="in use"):
            model.eval(model.tokenize(TEXT.encode()))


def test_a_second_thread_is_refused_while_the_first_one_reads(path: str) -> None:
    with LazyModel(path, n_threads=1, n_ubatch=32) as model:
        inside, go_on = threading.Event(), threading.Event()

        def wait(n_done: int, n_total: int) -> None:
            inside.set()
            assert go_on.wait(30)

        model.progress_callback = wait
        reader = threading.Thread(target=model.eval, args=(model.tokenize(TEXT.encode()),))
        reader.start()
        assert inside.wait(30)
        uses: list[Callable[[], Any]] = [
            lambda: model.eval([1]),
            lambda: model.reset(),
            lambda: model.logits,
            lambda: model.close(),
        ]
        for use in uses:
            with pytest.raises(RuntimeError, match="in use"):
                use()
        go_on.set()
        reader.join()
        assert model.n_tokens == len(model.tokenize(TEXT.encode()))


def test_cancel_stops_a_reading_in_another_thread(path: str) -> None:
    with LazyModel(path, n_threads=1, n_ubatch=8) as model:
        inside = threading.Event()
        errors: list[BaseException] = []
        model.progress_callback = lambda n_done, n_total: inside.set()

        def read() -> None:
            try:
                for _ in range(1000):
                    model.eval(model.tokenize(TEXT.encode()))
                    model.reset()
            except BaseException as error:
                errors.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        assert inside.wait(30)
        while reader.is_alive():  # a cancel between two evals has nothing to stop
            model.cancel()
            reader.join(0.001)
        assert [type(error) for error in errors] == [Cancelled]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_model_of_the_parent_process_is_refused_in_a_child(model: LazyModel) -> None:
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:  # nothing of pytest may run here
        said = b"no error"
        try:
            model.eval([1])
        except RuntimeError as error:
            said = str(error).encode()
        finally:
            os.write(write_end, said)
            os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    assert b"opened in another process" in os.read(read_end, 1000)
    os.close(read_end)


def test_scores_of_the_callers_own_decide_what_is_read(path: str) -> None:
    with LazyModel(path, keep=KeepSchedule.parse("-1:0.5", min_prompt=0)) as model:
        model.eval(list(range(3, 83)), scores=np.arange(80.0))
        assert model.stats.kept == [40]
        assert model.stats.token_share == 0.5
        model.eval(list(range(3, 23)), scores=-np.arange(100.0))  # now the beginning: it is read, the end is there
        assert model.stats.n_reused == 80 and model.stats.token_share > 1.0
        with pytest.raises(ValueError, match="5 scores, expected one for each of the 101 tokens"):
            model.eval([3], scores=[1.0] * 5)
        with pytest.raises(ValueError, match="score at position 7 is -inf"):
            model.eval([3], scores=[0.0] * 7 + [-np.inf] + [0.0] * 93)
        with pytest.raises(ValueError, match=r"scores have the shape \(1, 101\)"):
            model.eval([3], scores=np.zeros((1, 101)))
        assert model.n_tokens == 100
        with pytest.raises(ValueError, match="il -1 prunes by scores from outside"):
            model.create_completion("hello")


@pytest.mark.parametrize("mass", [0.3, 0.8, 1.0])
def test_an_easy_prompt_reads_less_than_it_may_before_layer_0(path: str, mass: float) -> None:
    point = PruningPoint(-1, 0.8, mass=mass, keep_min=0.1)
    scores = np.random.default_rng(1).random(80).astype(np.float32) ** 4
    scores[-24:] = np.inf  # those that ask
    with LazyModel(path, keep=KeepSchedule((point,), n_sink=0, min_prompt=0)) as model:
        model.eval(list(range(3, 83)), scores=scores)
        assert model.stats.kept == [n_wanted(scores, point)]
        assert (model.stats.kept == [64]) == (mass == 1.0)
        if mass < 1.0:
            with pytest.raises(ValueError, match="score at position 2 is -1, expected none below 0"):
                model.eval([3], scores=[0.0, 0.0, -1.0] + [0.0] * 78)


def test_scores_without_a_point_that_uses_them_are_refused(path: str) -> None:
    with LazyModel(path, keep="off") as model, pytest.raises(ValueError, match="no pruning point before layer 0"):
        model.eval([3, 4], scores=[0.0, 1.0])
