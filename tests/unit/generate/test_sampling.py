"""Sampling and grammars through llama.cpp, on the vocabulary of a tiny model."""

from __future__ import annotations

import ctypes
import importlib
import json
import math
from pathlib import Path
from typing import Any, Callable

import llama_cpp
import numpy as np
import pytest
from llama_cpp.llama_grammar import LlamaGrammar
from tiny_gguf import TinyConfig

from lazygguf.errors import LazyError
from lazygguf.generate.sampling import SEED_MAX, Sampler, SamplingParams
from lazygguf.text.grammar import grammar_of_schema
from lazygguf.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Callable[[TinyConfig], tuple[Path, Any]]) -> Tokenizer:
    return Tokenizer(str(tiny_model(TinyConfig())[0]))


@pytest.fixture
def logits(tokenizer: Tokenizer) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(tokenizer.n_vocab).astype(np.float32)


def sample(tokenizer: Tokenizer, logits: np.ndarray, n: int = 40, **params: Any) -> list[int]:
    with Sampler(tokenizer, SamplingParams(**params)) as sampler:
        return [sampler.sample(logits) for _ in range(n)]


def test_temperature_zero_takes_the_most_probable_token(tokenizer: Tokenizer, logits: np.ndarray) -> None:
    assert set(sample(tokenizer, logits, temperature=0)) == {int(logits.argmax())}


def test_the_same_seed_gives_the_same_tokens(tokenizer: Tokenizer, logits: np.ndarray) -> None:
    params: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    assert sample(tokenizer, logits, seed=7, **params) == sample(tokenizer, logits, seed=7, **params)
    assert sample(tokenizer, logits, seed=7, **params) != sample(tokenizer, logits, seed=8, **params)
    assert sample(tokenizer, logits, seed=-1, **params) != sample(tokenizer, logits, **params)


@pytest.mark.parametrize("params", [{}, {"mirostat_mode": 1}, {"mirostat_mode": 2}, {"top_k": 0, "temperature": 2.0}])
def test_the_largest_seed_is_a_seed_and_not_a_wish_for_a_new_one(
    tokenizer: Tokenizer, logits: np.ndarray, params: dict[str, Any]
) -> None:
    drawn = [sample(tokenizer, logits, seed=SEED_MAX, **params) for _ in range(3)]
    assert drawn[0] == drawn[1] == drawn[2] == sample(tokenizer, logits, seed=2_654_435_769, **params)
    assert drawn[0] != sample(tokenizer, logits, seed=SEED_MAX - 1, **params)


def test_the_tokens_are_those_of_llama_cpps_own_chain(tokenizer: Tokenizer, logits: np.ndarray) -> None:
    internals: Any = importlib.import_module("llama_cpp._internals")
    chain = internals.LlamaSampler()
    chain.add_top_k(40)
    chain.add_typical(1.0)
    chain.add_top_p(0.95)
    chain.add_min_p(0.05)
    chain.add_temp(0.8)
    chain.add_dist(3)
    array = internals.LlamaTokenDataArray(n_vocab=tokenizer.n_vocab)
    expected = []
    for _ in range(40):
        array.copy_logits(logits)
        llama_cpp.llama_sampler_apply(chain.sampler, ctypes.byref(array.candidates))
        expected.append(int(array.candidates.data[array.candidates.selected].id))
    assert sample(tokenizer, logits, seed=3) == expected


def test_top_k_keeps_only_the_most_probable_tokens(tokenizer: Tokenizer, logits: np.ndarray) -> None:
    best = set(np.argsort(logits)[-3:].tolist())
    drawn = sample(tokenizer, logits, 200, temperature=5.0, top_k=3, top_p=1.0, min_p=0.0)
    assert set(drawn) == best


@pytest.mark.parametrize("mode", [1, 2])
def test_mirostat_is_repeatable(tokenizer: Tokenizer, logits: np.ndarray, mode: int) -> None:
    drawn = [sample(tokenizer, logits, seed=1, mirostat_mode=mode) for _ in range(2)]
    assert drawn[0] == drawn[1]


def test_a_bias_moves_and_forbids_tokens(tokenizer: Tokenizer, logits: np.ndarray) -> None:
    best = int(logits.argmax())
    assert sample(tokenizer, logits, 1, temperature=0, logit_bias={str(best): -math.inf}) != [best]
    assert sample(tokenizer, logits, 1, temperature=0, logit_bias={5: 100.0}) == [5]
    with pytest.raises(ValueError, match="logit_bias has token id 320"):
        Sampler(tokenizer, SamplingParams(logit_bias={320: 1.0}))
    with pytest.raises(LazyError, match="forbids every token"):
        sample(tokenizer, logits, 1, logit_bias=dict.fromkeys(range(tokenizer.n_vocab), -math.inf))


def test_a_repeat_penalty_looks_at_accepted_tokens(tokenizer: Tokenizer, logits: np.ndarray) -> None:
    with Sampler(tokenizer, SamplingParams(temperature=0, repeat_penalty=100.0)) as sampler:
        first = sampler.sample(logits)
        assert sampler.sample(logits) == first  # not accepted yet
        sampler.accept(first)
        assert sampler.sample(logits) != first


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": -math.inf},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"temperature": "1"},
        {"top_p": -0.1},
        {"top_p": 2},
        {"top_k": -2},
        {"top_k": 1.5},
        {"min_p": 1.1},
        {"min_p": -0.1},
        {"typical_p": 0},
        {"repeat_penalty": -1},
        {"frequency_penalty": math.nan},
        {"presence_penalty": math.inf},
        {"seed": -2},
        {"seed": 2**32},
        {"seed": 1.5},
        {"logit_bias": {"x": 1}},
        {"logit_bias": {1: math.nan}},
        {"logit_bias": {1: math.inf}},
        {"mirostat_mode": 3},
        {"mirostat_tau": 0},
        {"last_n": -1},
    ],
)
def test_a_parameter_out_of_range_is_refused_by_name(params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(params))):
        SamplingParams(**params)


def test_logits_of_another_shape_or_with_nan_are_refused(tokenizer: Tokenizer, logits: np.ndarray) -> None:
    with Sampler(tokenizer, SamplingParams()) as sampler:
        with pytest.raises(ValueError, match="shape"):
            sampler.sample(logits[:-1])
        with pytest.raises(ValueError, match="NaN"):
            sampler.sample(np.full_like(logits, np.nan))
        with pytest.raises(ValueError, match="token id is 320"):
            sampler.accept(320)


def test_a_closed_sampler_says_so(tokenizer: Tokenizer, logits: np.ndarray) -> None:
    sampler = Sampler(tokenizer, SamplingParams())
    sampler.close()
    sampler.close()
    with pytest.raises(RuntimeError, match="closed"):
        sampler.sample(logits)


def write(tokenizer: Tokenizer, grammar: Any, seed: int, n: int = 60) -> tuple[str, bool]:
    """Random text under a grammar, and whether it ended by itself."""
    rng = np.random.default_rng(seed)
    data = b""
    with Sampler(tokenizer, SamplingParams(temperature=0), grammar) as sampler:
        for _ in range(n):
            token = sampler.sample(rng.standard_normal(tokenizer.n_vocab).astype(np.float32))
            sampler.accept(token)
            if tokenizer.is_eog(token):
                return data.decode("utf-8", "replace"), True
            data += tokenizer.piece(token)
    return data.decode("utf-8", "replace"), False


@pytest.mark.parametrize("seed", range(5))
def test_text_under_a_grammar_matches_it(tokenizer: Tokenizer, seed: int) -> None:
    text, ended = write(tokenizer, 'root ::= ("yes" | "no") " " [0-9]{2}', seed)
    assert ended and text in {f"{word} {n:02}" for word in ("yes", "no") for n in range(100)}


def test_a_grammar_object_and_a_json_schema_work_too(tokenizer: Tokenizer) -> None:
    grammar = LlamaGrammar.from_string('root ::= "abc"', verbose=False)
    assert write(tokenizer, grammar, 0) == ("abc", True)
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    text, ended = write(tokenizer, grammar_of_schema(schema), 0, n=400)
    assert ended and isinstance(json.loads(text)["a"], bool)


def test_a_grammar_never_accepts_what_it_forbids(tokenizer: Tokenizer) -> None:
    with Sampler(tokenizer, SamplingParams(), 'root ::= "abc"') as sampler:
        token = tokenizer.tokenize(b"z", add_bos=False)[-1]
        with pytest.raises(ValueError, match="does not allow token"):
            sampler.accept(token)


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ("root ::= foo", "Undefined rule identifier 'foo'"),
        ("root ::= [", "unexpected end of input"),
        ('x ::= "a"', "root"),
        ("root ::= root", "left recursion"),
        ("", "0 characters"),
        ('root ::= "a\0"', "NUL"),
        ("root ::= " + "(" * 257, "nests 257 parentheses"),
        ("root ::= " + "(" * 257 + '"a"' + ")" * 257, "nests 257 parentheses, expected at most 256"),
        ('root ::= "' + "a" * (1 << 20) + '"', "characters"),
    ],
)
def test_a_grammar_that_cannot_be_parsed_is_refused_with_the_reason(
    tokenizer: Tokenizer, capfd: pytest.CaptureFixture[str], grammar: str, reason: str
) -> None:
    with pytest.raises(ValueError) as caught:
        Sampler(tokenizer, SamplingParams(), grammar)
    assert reason in str(caught.value) and "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_parentheses_in_literals_do_not_nest(tokenizer: Tokenizer) -> None:
    grammar = 'root ::= "' + "(" * 300 + '" [(] # ' + "(" * 300
    assert write(tokenizer, grammar, 0, n=400)[0].startswith("(((")


@pytest.mark.parametrize("schema", ["{", "[]", '{"type": "zork"}', '{"$ref": "#/x"}'])
def test_a_schema_that_cannot_be_a_grammar_is_refused(schema: str) -> None:
    with pytest.raises(ValueError, match="JSON schema"):
        grammar_of_schema(schema)
