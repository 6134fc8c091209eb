"""Arguments, prompts and files that ``LazyModel`` refuses, and strange ones that it takes."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from answers import TEXT, greedy

from lazygguf import ContextFullError, LazyModel
from lazygguf._ffi import list_devices
from lazygguf.errors import LazyError, ModelFileError


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
        ({"logits_all": 5}, "logits_all is 5, expected False or True"),
        ({"flash_attn": 3}, "flash_attn is 3, expected False or True"),
        ({"chat_format": "alpaca"}, "chat_format is 'alpaca', expected None or 'chatml'"),
        ({"chat_format": "chatml", "chat_template": "x"}, "chat_template is given too"),
        ({"type_v": 2}, "type_v is 2, expected one of f16, f32, q8_0"),
        ({"rope_freq_base": 10000.0}, "rope_freq_base is 10000.0, expected 0.0"),
        ({"chat_template": "{% for"}, "chat template"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(path: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        LazyModel(path, **options)
    assert message in str(caught.value)


def test_arguments_of_llama_cpp_that_say_what_is_done_anyway_are_accepted(path: str) -> None:
    theirs: Any = {"flash_attn": True, "logits_all": True, "chat_format": None}
    with LazyModel(path, n_threads=1, n_batch=256, **theirs) as model:
        assert greedy(model)


def test_every_default_of_llama_cpp_may_be_spelled_out(path: str) -> None:
    parameters = inspect.signature(llama_cpp.Llama.__init__).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    assert len(defaults) > 40
    with LazyModel(path, **{**defaults, "n_ctx": 64, "n_threads": 1, "verbose": False}) as model:
        assert model.n_ctx() == 64


def test_numbers_of_numpy_and_ggmls_cache_types_are_taken(path: str) -> None:
    given: Any = {"n_ctx": np.int64(64), "seed": np.uint32(3), "second_look": np.float32(0), "n_gpu_layers": np.int8(0)}
    with LazyModel(path, n_threads=np.int32(1), type_k=1, type_v=np.int64(0), **given) as model:
        assert (model._options.type_k, model._options.type_v) == ("f16", "f32")
        model.eval(np.array([5, 6, 7]), query_span=(np.int64(0), np.int64(2)))


@pytest.mark.parametrize("span", [(5, 0), (1, 1), (0, 4), (-1, 1), 5, ("a", 1), (0, 1, 2)])
def test_a_span_that_is_none_is_refused(model: LazyModel, span: Any) -> None:
    with pytest.raises(ValueError) as caught:
        model.eval([5, 6, 7], query_span=span)
    assert f"query_span is {span!r}, expected two positions" in str(caught.value)
    assert model.n_tokens == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.eval(None), "tokens is None, expected a list of token ids"),
        (lambda model: model.detokenize(5), "tokens is 5, expected a list of token ids"),
        (lambda model: model.create_completion(None), "prompt is None, expected text or token ids"),
        (lambda model: model.eval([5], scores="x"), "scores is 'x', expected a number for every token"),
        (lambda model: model.create_chat_completion(None), "messages is None, expected a list"),
        (lambda model: model.create_chat_completion({"role": "user"}), "messages is {'role': 'user'}, expected a list"),
        (lambda model: model.create_chat_completion([{"role": "user", "content": 5}]), "message content is 5"),
        (lambda model: type(model)(b"/x.gguf"), "model_path is b'/x.gguf', expected text"),
        (lambda model: type(model)(model.model_path, headings=3), "headings is 3, expected a regular expression"),
    ],
)
def test_a_value_of_a_wrong_type_is_named_with_its_argument(model: LazyModel, call: Any, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        call(model)
    assert message in str(caught.value)


def test_a_files_name_cannot_write_lines_or_escapes_into_a_message(tmp_path: Path) -> None:
    path = tmp_path / "a\n\x1b[31m\u2028b.gguf"
    path.write_bytes(b"no model, but long enough for a header")
    with pytest.raises(LazyError) as caught:
        LazyModel(path)
    assert not any(ord(char) < 32 or char == "\u2028" for char in str(caught.value))
    assert str(ModelFileError(f"{path}: x")).endswith(r"a\n\x1b[31m\u2028b.gguf: x")


@pytest.mark.skipif(any(d.type in ("GPU", "IGPU") for d in list_devices()), reason="this machine has a GPU")
def test_all_layers_on_no_gpu_are_on_the_cpu_with_a_warning(path: str, caplog: pytest.LogCaptureFixture) -> None:
    with LazyModel(path, n_gpu_layers=-1, n_ctx=256, n_threads=1) as model:
        assert greedy(model)
    assert "n_gpu_layers is -1, but there is no GPU here" in caplog.text


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
