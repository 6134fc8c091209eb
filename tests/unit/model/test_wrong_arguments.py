"""Whatever stands in the place of an argument, the error names that argument: no error comes from the inside.

Each public call gets each of ``WRONG`` for each of its arguments. A value may be right; then nothing is raised.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from lazygguf import KeepSchedule, LazyModel, PruningPoint
from lazygguf.errors import LazyError
from lazygguf.generate.options import CHAT_OPTIONS, TEXT_OPTIONS
from lazygguf.generate.sampling import SamplingParams
from lazygguf.model.options import _FIXED, ModelOptions
from lazygguf.schedule.scoring import ScoringProfile

WRONG: dict[str, Any] = {
    "None": None, "-5": -5, "2.5": 2.5, "NaN": math.nan, "inf": math.inf, "text": "zork", "bytes": b"x", "": "",
    "two": [2, 2], "dict": {"a": 1}, "set": {1}, "tuple": (1,), "texts": ["a", "b"], "nothing in a list": [None],
    "two numbers of NumPy": np.array([1, 2]), "two floats of NumPy": np.array([0.5, 0.5]), "one": np.array([3]),
    "matrix": np.array([[1]]), "texts of NumPy": np.array(["a", "b"]), "objects of NumPy": np.array([None, None]),
    "an object": object(), "a lone surrogate": "a\ud800b", "lone surrogates": ["a\ud800"], "NUL": "a\0b",
    "path": Path("zork"), "True": True, "huge": 10**30, "huge float": 1e300, "complex": 1j,
}  # fmt: skip
MESSAGES = [{"role": "user", "content": "hi"}]
POINT = PruningPoint(1, 0.5)


def assert_named(call: Callable[[Any], Any], value: Any, *names: str) -> None:
    """The call works, or its error is one for users: one line with one of the names."""
    try:
        result = call(value)
        if isinstance(result, Iterator):
            list(itertools.islice(result, 2))
        if isinstance(result, LazyModel):
            result.close()
    except FileNotFoundError as error:  # the path is the argument
        assert str(value) in str(error)
    except (ValueError, TypeError, LazyError) as error:
        message = str(error)
        assert not isinstance(error, UnicodeError), message
        assert any(name in message for name in names), f"{type(error).__name__} does not say whose: {message}"
        assert "\n" not in message and len(message) < 400
        message.encode("utf-8")


def given_as(call: Callable[..., Any], first: Any, name: str, value: Any, **others: Any) -> Any:
    """The call with a value for the argument of this name, and others."""
    return call(first, **{**others, name: value})


def called(call: Callable[..., Any], **arguments: Any) -> Any:
    return call(**arguments)


def values() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("value", WRONG.values(), ids=WRONG.keys())


@values()
def test_opening_a_model(path: str, value: Any) -> None:
    for name in (*(option.name for option in fields(ModelOptions)), *_FIXED):
        if name == "verbose" and value is True:
            continue  # llama.cpp's log would stay on in this process
        assert_named(partial(given_as, LazyModel, path, name, n_threads=1, n_ctx=64), value, name)
    assert_named(LazyModel, value, "model_path")


@values()
def test_completions(model: LazyModel, value: Any) -> None:
    short: dict[str, Any] = {"max_tokens": 1}
    for name in (*TEXT_OPTIONS, "suffix", "functions", "tools", "tool_choice", "stream"):
        assert_named(partial(given_as, model.create_completion, "hi", name, max_tokens=1), value, name)
    for name in (*CHAT_OPTIONS, "functions", "tools", "tool_choice", "stream"):
        assert_named(partial(given_as, model.create_chat_completion, MESSAGES, name, max_tokens=1), value, name)
    assert_named(lambda given: model.create_completion(given, **short), value, "prompt", "token id")
    assert_named(lambda given: model.create_chat_completion(given, **short), value, "message")
    for name in ("role", "content", "name"):
        messages: Any = [{**MESSAGES[0], name: value}]
        assert_named(partial(given_as, model.create_chat_completion, messages, "max_tokens"), 1, "message")


@values()
def test_parts_of_completion_options(model: LazyModel, value: Any) -> None:
    def chat(**options: Any) -> Any:
        return model.create_chat_completion(MESSAGES, max_tokens=1, **options)

    assert_named(lambda given: chat(stop=["a", given]), value, "stop")
    assert_named(lambda given: chat(response_format={"type": given}), value, "response_format")
    schema = {"type": "json_object", "schema": value}
    assert_named(lambda given: chat(response_format=schema), value, "JSON schema", "response_format")
    assert_named(lambda given: chat(logit_bias={3: given}), value, "logit_bias")
    assert_named(lambda given: chat(logits_processor=lambda ids, logits: given), value, "logits_processor")
    assert_named(lambda given: chat(logits_processor=[given]), value, "logits_processor")
    assert_named(lambda given: chat(stopping_criteria=[given]), value, "stopping_criteria")
    if getattr(value, "__hash__", None) is not None:
        assert_named(lambda given: chat(logit_bias={given: 1}), value, "logit_bias")


@values()
def test_generate_eval_and_tokens(model: LazyModel, value: Any) -> None:
    for name in ("temp", "grammar", *(field.name for field in fields(SamplingParams) if field.name != "temperature")):
        names = (name, "temperature") if name == "temp" else (name,)
        assert_named(partial(given_as, model.generate, [5], name), value, *names)
    assert_named(model.generate, value, "tokens", "token id")
    model.reset()
    assert_named(model.eval, value, "tokens", "token id")
    model.reset()
    assert_named(lambda given: model.eval([5, 6], scores=given), value, "scores")
    model.reset()
    assert_named(lambda given: model.eval([5, 6], query_span=given), value, "query_span")
    assert_named(model.tokenize, value, "text is")
    assert_named(lambda given: model.tokenize(b"a", given), value, "add_bos")
    assert_named(lambda given: model.tokenize(b"a", True, given), value, "special")
    assert_named(model.detokenize, value, "tokens", "token id")
    assert_named(lambda given: model.detokenize([5], special=given), value, "special")
    assert_named(model.as_draft, value, "scoring")


@pytest.mark.parametrize("value", [5, "text", [print], np.array([1, 2])])
def test_a_callback_that_cannot_be_called_is_refused_when_it_is_set(model: LazyModel, value: Any) -> None:
    with pytest.raises(TypeError, match=r"progress_callback is .* expected a function"):
        model.progress_callback = value
    with pytest.raises(TypeError, match=r"skim_callback is .* expected a function"):
        model.skim_callback = value
    assert model.progress_callback is None and model.skim_callback is None


@values()
def test_schedules(value: Any) -> None:
    for field in fields(PruningPoint):
        assert_named(partial(given_as, called, PruningPoint, field.name, il=1, keep=0.5), value, field.name)
    for field in fields(KeepSchedule):
        assert_named(partial(given_as, called, KeepSchedule, field.name, points=(POINT,)), value, field.name)
    for field in fields(ScoringProfile):
        assert_named(partial(given_as, called, ScoringProfile, field.name, layers=(1,)), value, field.name)
    assert_named(KeepSchedule.parse, value, "spelling", "keep schedule")
    assert_named(KeepSchedule.paper, value, "spelling", "keep schedule")
    assert_named(KeepSchedule.auto, value, "n_layer")
    assert_named(KeepSchedule.from_json, value, "keep profile")
    assert_named(KeepSchedule.from_dict, value, "keep profile")
    assert_named(lambda given: KeepSchedule((POINT,)).validate(given, 4), value, "n_layer", "il is")
    assert_named(lambda given: KeepSchedule((POINT,)).validate(4, given), value, "n_head", "head is")


def test_switches_are_true_or_false(model: LazyModel, path: str) -> None:
    switches: list[Any] = [True, 1, np.bool_(True), np.int64(1)]
    for switch in switches:
        assert isinstance(model.tokenize(b"a", add_bos=switch), list)
        assert list(model.create_completion("a", max_tokens=1, stream=switch))
    words: list[Any] = ["no", "False", 2, []]
    for word in words:
        with pytest.raises(TypeError, match=r"use_mmap is .* expected True or False"):
            LazyModel(path, use_mmap=word)


def test_a_logits_processor_may_be_one_function_or_a_list_of_them(model: LazyModel) -> None:
    def only_seven(ids: Any, logits: Any) -> Any:
        return np.where(np.arange(len(logits)) == 7, 0.0, -100.0)

    answers = [
        model.create_completion("a", max_tokens=2, temperature=0, logits_processor=given)["choices"][0]["text"]
        for given in (only_seven, [only_seven], (only_seven,))
    ]
    assert answers == [model.detokenize([7, 7]).decode("utf-8", "replace")] * 3
