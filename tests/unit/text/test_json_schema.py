"""JSON schemas: each keyword is obeyed or refused by its name and place.

``json_schema_cases.json`` has for each keyword a schema, values that match it and values that do not; or where it is
refused. Its cases are our own, after those of the JSON-Schema-Test-Suite.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from tiny_gguf import TinyConfig

from lazygguf.errors import LazyError
from lazygguf.generate.sampling import Sampler, SamplingParams
from lazygguf.text import json_keywords
from lazygguf.text.grammar import GrammarFilter, grammar_of_response_format, grammar_of_schema
from lazygguf.text.json_schema import JsonSchema
from lazygguf.text.tokenizer import Tokenizer

CASES = json.loads(Path(__file__).with_name("json_schema_cases.json").read_text(encoding="utf-8"))
OBEYED = [case for case in CASES if "valid" in case]
REFUSED = [case for case in CASES if "refused" in case]
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", 'b"', "c\n"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module", params=["bpe", "spm"])
def tokenizer(request: pytest.FixtureRequest, tiny_model: Callable[[TinyConfig], tuple[Path, Any]]) -> Tokenizer:
    return Tokenizer(str(tiny_model(TinyConfig(tokenizer=request.param))[0]))


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """Tokens of the text; a SentencePiece vocabulary's space in front of it is left out."""
    ids = tokenizer.tokenize(("\n" + text).encode(), add_bos=False)
    while tokenizer.detokenize(ids) != text.encode():
        ids = ids[1:]
    return ids


def matches(tokenizer: Tokenizer, schema: Any, text: str) -> bool:
    return takes(tokenizer, grammar_of_schema(schema), text)


def takes(tokenizer: Tokenizer, of: JsonSchema, text: str) -> bool:
    grammar = GrammarFilter(tokenizer, of)
    try:
        for token in ids_of(tokenizer, text):
            grammar.accept(token)
        return grammar.allows(tokenizer.token_eos())
    except ValueError:
        return False
    finally:
        grammar.close()


@pytest.mark.parametrize("case", OBEYED, ids=lambda case: json.dumps(case["schema"])[:60])
def test_a_keyword_is_obeyed(tokenizer: Tokenizer, case: dict[str, Any]) -> None:
    for value in case["valid"]:
        for indent in (None, 2):
            text = json.dumps(value, ensure_ascii=False, indent=indent)
            assert matches(tokenizer, case["schema"], text), f"{text} is refused"
    for value in case["invalid"]:
        text = json.dumps(value, ensure_ascii=False)
        assert not matches(tokenizer, case["schema"], text), f"{text} is taken"


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: json.dumps(case["schema"])[:60])
def test_a_keyword_that_cannot_be_obeyed_is_refused_by_name_and_place(case: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as caught:
        grammar_of_schema(case["schema"])
    said = str(caught.value)
    assert said.startswith(f"JSON schema at {case['refused']}: ") and "\n" not in said
    assert case["keyword"] in said or case["refused"].endswith(f"/{case['keyword']}")


def test_every_keyword_has_a_case() -> None:
    tried = {case["keyword"] for case in CASES}
    keywords = {*json_keywords.KEYWORDS, *json_keywords.REFUSED} - {"id"}
    assert keywords <= tried


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "b\nc"}',
        "{'a': 1}",
        "{a: 1}",
        '{"a": 1,}',
        "[1, 2",
        '{"a" 1}',
        "NaN",
        "+1",
        "01",
        ".5",
        "1.",
        '"\\x"',
        "",
    ],
)
def test_text_that_is_no_json_is_not_taken(tokenizer: Tokenizer, text: str) -> None:
    assert not matches(tokenizer, {}, text)


@pytest.mark.skipif(sys.version_info < (3, 10), reason="llguidance 1.3, the newest there, has no bound")
def test_white_space_is_bounded(tokenizer: Tokenizer) -> None:
    assert matches(tokenizer, {}, "[ 1,\n\n" + " " * 20 + "2]")
    assert not matches(tokenizer, {}, "[" + " " * 2 + "1]")
    assert not matches(tokenizer, {}, "[\n\n\n1]")


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("schema", [PERSON, {"type": "object"}, {"type": "array", "items": {"type": "string"}}])
def test_whatever_the_model_wants_the_answer_is_json(tokenizer: Tokenizer, schema: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    end, data, ended = tokenizer.token_eos(), b"", False
    with Sampler(tokenizer, SamplingParams(seed=seed, temperature=seed % 2), grammar_of_schema(schema)) as sampler:
        for n in range(3000):
            logits = rng.standard_normal(tokenizer.n_vocab).astype(np.float32)
            logits[ids_of(tokenizer, '"]}')] += n / 40  # sooner or later it wants to end
            logits[end] += n / 40
            token = sampler.sample(logits)
            sampler.accept(token)
            if tokenizer.is_eog(token):
                ended = True
                break
            data += tokenizer.piece(token)
    assert ended
    assert isinstance(json.loads(data), list if schema["type"] == "array" else dict)
    assert matches(tokenizer, schema, data.decode())


def test_only_an_end_of_generation_token_follows_a_whole_value(tokenizer: Tokenizer) -> None:
    with Sampler(tokenizer, SamplingParams(temperature=0), grammar_of_schema({"const": True})) as sampler:
        logits = np.zeros(tokenizer.n_vocab, np.float32)
        for token in ids_of(tokenizer, "true"):
            sampler.accept(token)
        assert tokenizer.is_eog(sampler.sample(logits))
        sampler.accept(tokenizer.token_eos())
        with pytest.raises(ValueError, match="does not allow token"):
            sampler.accept(tokenizer.token_eos())


def test_a_bias_against_all_that_is_possible_is_an_error(tokenizer: Tokenizer) -> None:
    ends = {token: -np.inf for token in range(tokenizer.n_vocab) if tokenizer.is_eog(token)}
    with Sampler(tokenizer, SamplingParams(logit_bias=ends), grammar_of_schema({"const": 1})) as sampler:
        for token in ids_of(tokenizer, "1"):
            sampler.accept(token)
        with pytest.raises(LazyError, match="logit_bias forbids every token"):
            sampler.sample(np.zeros(tokenizer.n_vocab, np.float32))


def test_two_answers_of_one_model_stand_in_their_own_place(tokenizer: Tokenizer) -> None:
    schema = grammar_of_schema({"type": "array", "maxItems": 1})
    first, second = GrammarFilter(tokenizer, schema), GrammarFilter(tokenizer, schema)
    for token in ids_of(tokenizer, "[]"):
        first.accept(token)
    assert first.allows(tokenizer.token_eos()) and not second.allows(tokenizer.token_eos())


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("{", "is not JSON"),
        ('{"minimum": NaN}', "NaN is no JSON number"),
        ({"enum": [float("inf")]}, "is not JSON"),
        ({"a": {1, 2}}, "is not JSON"),
        (" " * (1 << 20) + "{}", "characters"),
        ("[" * 100_000, "nests too deep"),
        ('{"const": ' + "[" * 950 + "]" * 950 + "}", ""),  # too deep for Python or for llguidance
        ({"properties": {"a\n\x1b": {"not": {}}}}, r"#/properties/a\n\x1b"),
        (False, "anyOf is empty"),
    ],
)
def test_what_is_no_schema_is_refused_in_one_line(schema: Any, said: str) -> None:
    with pytest.raises(ValueError, match=r"^JSON schema") as caught:
        grammar_of_schema(schema)
    assert said in str(caught.value) and str(caught.value).isprintable()


def test_schemas_and_references_nest_up_to_a_limit() -> None:
    def chain(n: int) -> dict[str, Any]:
        links = {str(i): {"items": {"$ref": f"#/$defs/{i + 1}"}} for i in range(n)}
        return {"$ref": "#/$defs/0", "$defs": {**links, str(n): {"type": "null"}}}

    grammar_of_schema(chain(25))
    with pytest.raises(ValueError, match="deeper than 64 levels"):
        grammar_of_schema(chain(40))


@pytest.mark.parametrize(
    ("response_format", "value", "other"),
    [
        ({"type": "json_object"}, {"a": [1]}, [1]),
        ({"type": "json_object", "schema": {}}, [1], None),
        ({"type": "json_object", "schema": {"type": "integer"}}, 3, "a"),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "integer"}}}, 3, "a"),
        (
            {
                "type": "json_schema",
                "json_schema": {"name": "a-B_1", "description": "d", "strict": True, "schema": PERSON},
            },
            {"name": "A", "age": 3, "tags": ['b"']},
            {"name": "A", "age": 121, "tags": []},
        ),
        ({"type": "json_schema", "json_schema": {"name": "n", "strict": None}}, {"a": [1]}, [1]),
    ],
)
def test_response_formats_of_openai_and_llama_cpp_python(
    tokenizer: Tokenizer, response_format: Any, value: Any, other: Any
) -> None:
    grammar = grammar_of_response_format(response_format)
    assert grammar is not None
    for candidate, expected in ((value, True), (other, False)):
        if candidate is not None:
            assert takes(tokenizer, grammar, json.dumps(candidate)) is expected


@pytest.mark.parametrize(
    ("response_format", "said"),
    [
        ({"type": "xml"}, "'xml'"),
        ("json", "'json'"),
        ("json_object", "'json_object'"),
        ({"type": "text", "schema": {}}, "'schema'"),
        ({"type": "json_object", "scheme": {}}, "'scheme'"),
        ({"type": "json_object", "schema": {"not": {}}}, '"not"'),
        ({"type": "json_object", "json_schema": {}}, "'json_schema'"),
        ({"type": "json_schema"}, "json_schema is None"),
        ({"type": "json_schema", "schema": {}}, "'schema'"),
        ({"type": "json_schema", "json_schema": {"schema": {}}}, "name is None"),
        ({"type": "json_schema", "json_schema": {"name": "a b"}}, "name is 'a b'"),
        ({"type": "json_schema", "json_schema": {"name": "a", "strict": "yes"}}, "strict is 'yes'"),
        ({"type": "json_schema", "json_schema": {"name": "a", "description": 3}}, "description is 3"),
        ({"type": "json_schema", "json_schema": {"name": "a", "shema": {}}}, "'shema'"),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": {"zork": 1}}}, '"zork"'),
    ],
)
def test_other_response_formats_are_refused(response_format: Any, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        grammar_of_response_format(response_format)
    assert said in str(caught.value)


def test_a_response_format_of_text_has_no_grammar() -> None:
    assert grammar_of_response_format({"type": "text"}) is None


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"required": [f"r{i}" for i in range(501)]}, '#: keyword "required" has 501 names, expected at most 500'),
        ({"properties": {f"p{i}": {} for i in range(501)}}, "#/properties: an object has 501 names"),
        ({"const": {f"c{i}": 1 for i in range(501)}}, "#/const: an object has 501 names"),
        ({"patternProperties": {f"^q{i}": {} for i in range(51)}}, 'keyword "patternProperties" has 51 names'),
        ({"allOf": [{"multipleOf": 997}, {"multipleOf": 991}]}, 'keyword "multipleOf" is 9.*come to 20000'),
        ({"enum": list(range(50_001))}, "more than 50000 values"),
    ],
)
def test_a_schema_that_would_take_too_much_is_refused(schema: Any, said: str) -> None:
    for given in (schema, json.dumps(schema)):
        with pytest.raises(ValueError, match=said):
            grammar_of_schema(given)


def test_a_schema_whose_parts_are_shared_is_refused_before_it_is_written() -> None:
    shared: dict[str, Any] = {"type": "integer"}
    for _ in range(40):
        shared = {"properties": {"a": shared, "b": shared}}
    with pytest.raises(ValueError, match="more than 50000 values"):
        grammar_of_schema(shared)


@pytest.mark.skipif(sys.version_info < (3, 10), reason="llguidance 1.3 does not know the option")
@pytest.mark.parametrize(
    "free", [{}, {"additionalProperties": {"type": "string"}}, {"patternProperties": {"^x": False}}]
)
def test_a_name_cannot_be_spelled_in_another_way(tokenizer: Tokenizer, free: dict[str, Any]) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], **free}
    assert matches(tokenizer, schema, '{"a":1}')
    assert not matches(tokenizer, schema, '{"a":1,"\\u0061":"x"}')


def test_a_response_format_without_a_schema_is_an_object_and_a_text_is_refused(tokenizer: Tokenizer) -> None:
    grammar = grammar_of_response_format({"type": "json_schema", "json_schema": {"name": "x"}})
    assert grammar is not None and takes(tokenizer, grammar, '{"a":1}') and not takes(tokenizer, grammar, "1")
    with pytest.raises(ValueError, match="response_format is 'json_object', expected a dict such as"):
        grammar_of_response_format("json_object")
