"""JSON answers of a LazyModel: they parse, with whatever else a generation has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from answers import TEXT

from lazygguf import LazyModel

LEVEL = {"type": "object", "properties": {"level": {"enum": ["low", "high"]}}, "required": ["level"]}
OPENAI: dict[str, Any] = {"type": "json_schema", "json_schema": {"name": "level", "strict": True, "schema": LEVEL}}
ASK = [{"role": "user", "content": TEXT + "\n\nhow high?"}]


@pytest.mark.parametrize("temperature", [0, 1.5])
@pytest.mark.parametrize("options", [{"keep": "off"}, {"keep": "1:0.5"}, {"keep": "-1:0.5", "draft": True}])
def test_an_answer_that_ends_by_itself_is_json(path: str, options: dict[str, Any], temperature: float) -> None:
    if options.get("draft"):
        options = {**options, "draft": str(path)}
    with LazyModel(path, n_threads=1, **options) as model:
        asked: dict[str, Any] = {"temperature": temperature, "seed": 1, "max_tokens": 400, "repeat_penalty": 1.3}
        whole = model.create_chat_completion(ASK, response_format=OPENAI, **asked)
        choice = whole["choices"][0]
        assert choice["finish_reason"] == "stop"
        content = choice["message"]["content"]
        assert json.loads(content)["level"] in ("low", "high")
        chunks = model.create_chat_completion(ASK, response_format=OPENAI, stream=True, **asked)
        assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == content


def test_an_answer_that_is_cut_says_so(model: LazyModel) -> None:
    choice = model.create_completion(TEXT, response_format=OPENAI, max_tokens=2)["choices"][0]
    assert choice["finish_reason"] == "length"


def test_stop_texts_and_biases_go_on_working(model: LazyModel) -> None:
    fixed = {"type": "json_object", "schema": {"const": ["one", "two"]}}
    asked: dict[str, Any] = {"response_format": fixed, "max_tokens": 200, "seed": 1}
    end = model.create_completion(TEXT, stop=["two"], **asked)["choices"][0]
    assert end["finish_reason"] == "stop" and json.loads(end["text"] + 'two"]') == ["one", "two"]
    bias = {token: -100.0 for token in model.tokenize(b" \n", add_bos=False)}
    whole = model.create_completion(TEXT, logit_bias=bias, **asked)["choices"][0]
    assert whole["finish_reason"] == "stop" and json.loads(whole["text"]) == ["one", "two"]
    assert not {" ", "\n"} & set(whole["text"])


def test_a_schema_that_is_refused_leaves_the_model_as_it_was(model: LazyModel) -> None:
    model.eval(model.tokenize(TEXT.encode()))
    n_tokens = model.n_tokens
    refused = {"type": "json_object", "schema": {"properties": {"a": {"uniqueItems": True}}}}
    with pytest.raises(ValueError, match='#/properties/a: keyword "uniqueItems" is not supported'):
        model.create_chat_completion(ASK, response_format=refused)
    assert model.n_tokens == n_tokens


@pytest.mark.model
def test_a_real_models_json_parses_though_it_likes_line_breaks(smollm2_path: Path) -> None:
    schema = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    ask = [{"role": "user", "content": "Write a poem of four lines, as JSON."}]
    asked: dict[str, Any] = {"max_tokens": 160, "temperature": 0.8, "stop": None}
    ended = 0
    with LazyModel(str(smollm2_path), n_ctx=1024, n_threads=1, keep="off") as model:
        for seed in range(8):
            choice = model.create_chat_completion(
                ask, response_format={"type": "json_object", "schema": schema}, seed=seed, **asked
            )["choices"][0]
            if choice["finish_reason"] == "stop":
                ended += 1
                assert isinstance(json.loads(choice["message"]["content"])["text"], str)
    assert ended > 0
