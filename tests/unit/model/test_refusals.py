"""Arguments, prompts and files that ``LazyModel`` refuses, and strange ones that it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from answers import TEXT, greedy

from lazygguf import ContextFullError, LazyModel
from lazygguf.errors import LazyError


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
    theirs: Any = {"flash_attn": True, "logits_all": False, "chat_format": None}
    with LazyModel(path, n_threads=1, n_batch=256, **theirs) as model:
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
