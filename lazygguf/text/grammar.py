"""What an answer must match: GBNF, a ``llama_cpp.LlamaGrammar``, or a JSON schema; and OpenAI's ``response_format``.

Owns the one filter over tokens that the sampler asks, whatever the grammar is, and the forms of ``response_format``.
"""

from __future__ import annotations

import re
from typing import Any, Optional, Union

import numpy.typing as npt

from .gbnf import GbnfFilter, GbnfLike
from .json_schema import JsonSchema, json_schema
from .schema_filter import SchemaFilter
from .tokenizer import Tokenizer

GrammarLike = Union[GbnfLike, JsonSchema]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class GrammarFilter:
    """One grammar and where a generation stands in it."""

    def __init__(self, tokenizer: Tokenizer, grammar: GrammarLike) -> None:
        """Raises ValueError with the reason when the grammar cannot be used."""
        self._filter: Union[GbnfFilter, SchemaFilter]
        if isinstance(grammar, JsonSchema):
            self._filter = SchemaFilter(tokenizer, grammar)
        else:
            self._filter = GbnfFilter(tokenizer, grammar)

    def apply(self, candidates: npt.NDArray[Any]) -> None:
        """Sets the logits of the tokens that the grammar forbids now to ``-inf``.

        Args:
            candidates: (n_vocab,) of llama.cpp's ``llama_token_data``, in the order of the ids.
        """
        self._filter.apply(candidates)

    def allows(self, token: int) -> bool:
        """Whether the token may come next."""
        return self._filter.allows(token)

    def accept(self, token: int) -> None:
        """Goes on by one token; ValueError when the grammar forbids it."""
        self._filter.accept(token)

    def close(self) -> None:
        """Frees the grammar; a second call does nothing."""
        self._filter.close()


def grammar_of_schema(schema: Union[str, bool, dict[str, Any]]) -> JsonSchema:
    """The grammar of a JSON schema, or of its text.

    Raises:
        ValueError: not JSON, or a schema with something that cannot be enforced: its keyword and place.
    """
    return json_schema(schema)


def grammar_of_response_format(response_format: Any) -> Optional[JsonSchema]:
    """The grammar of OpenAI's ``response_format``.

    ``{"type": "text"}``; ``{"type": "json_object"}``, an object, or with llama-cpp-python's ``"schema"`` what matches
    it; ``{"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}}``. There ``"description"`` is for
    people and ``"strict"`` changes nothing: an answer always matches, and what cannot be enforced is refused.

    Returns:
        None for text.

    Raises:
        ValueError: another form, or a schema that cannot be enforced.
    """
    if not isinstance(response_format, dict):
        raise ValueError(f'response_format is {response_format!r}, expected a dict such as {{"type": "json_object"}}')
    kind = response_format.get("type")
    if not isinstance(kind, str):
        kind = repr(kind)[:60]
    if kind == "text":
        _check_keys("response_format", response_format, ("type",))
        return None
    if kind == "json_object":
        _check_keys("response_format", response_format, ("type", "schema"))
        schema = response_format.get("schema")
        return grammar_of_schema({"type": "object"} if schema is None else schema)
    if kind == "json_schema":
        _check_keys("response_format", response_format, ("type", "json_schema"))
        return grammar_of_schema(_named_schema(response_format.get("json_schema")))
    raise ValueError(
        f'response_format type is {kind!r}, expected {{"type": "text"}}, "json_object" or "json_schema" as its type'
    )


def _named_schema(given: Any) -> Any:
    """The schema inside of OpenAI's ``json_schema``; an object where it has none."""
    if not isinstance(given, dict):
        raise ValueError(f'response_format json_schema is {given!r}, expected {{"name": ..., "schema": {{...}}}}')
    _check_keys("response_format json_schema", given, ("name", "description", "schema", "strict"))
    name = given.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"response_format json_schema name is {name!r}, expected 1 to 64 letters, digits, _ or -")
    if not isinstance(given.get("description", ""), (str, type(None))):
        raise ValueError(f"response_format json_schema description is {given['description']!r}, expected text")
    if not isinstance(given.get("strict"), (bool, type(None))):
        raise ValueError(f"response_format json_schema strict is {given['strict']!r}, expected True or False")
    schema = given.get("schema")
    return {"type": "object"} if schema is None else schema


def _check_keys(what: str, given: dict[str, Any], known: tuple[str, ...]) -> None:
    unknown = sorted(str(name) for name in set(given) - set(known))
    if unknown:
        raise ValueError(f"{what} has {unknown[0]!r}, expected only {', '.join(known)}")
