"""JSON schemas: every keyword is obeyed or refused by its name and place.

Owns the core schema that llguidance gets: references resolved, annotations and keywords without an effect left out. So
nothing reaches llguidance that it would ignore. Which keywords and values are taken is json_keywords'; docs/json.md has
the table. It knows nothing of tokens.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Callable, Union
from urllib.parse import unquote

import llguidance

from .json_keywords import (
    ANNOTATIONS,
    CHECKS,
    COUNTS,
    MAPS,
    MAX_EXACT,
    ONE,
    REFUSED,
    TYPES,
    shown,
    unknown_keyword,
)
from .json_strings import rust_pattern, with_encoding, with_format

MAX_SCHEMA_CHARS = 1 << 20
MAX_DEPTH = 64  # of schemas and references in each other
# llguidance takes a level of its stack, or time that grows faster than the schema, for each of these
MAX_NAMES = 500  # of one object
MAX_PATTERNS = 50  # of names of one object
MAX_PARTS = 50_000  # values in a schema, each as often as it would be written
MAX_STATES = 20_000  # the product of all multipleOf: a number is divided by all of them at once
MAX_REASON_CHARS = 200
MAX_SEARCH_CHARS = 5_000_000  # of schemas that are compiled to find the place of an error, a second or two

# Between JSON's tokens: nothing, one space, or line breaks and indentation, as llama.cpp's grammars have it. Without a
# bound a small model can go on with white space for ever.
_OPTIONS = {"whitespace_pattern": r"\x20|\n{1,2}[\x20\t]{0,20}"}
# Names are written without \uXXXX, as texts are: another spelling of a name would not be held to its schema. llguidance
# 1.3, the newest for Python 3.9, does not know this option.
_NAMES_AS_THEY_ARE = {"json_allowed_escapes": 'nrtbf\\"'}
# Forced text may come in any tokens: the model chooses them, and llguidance needs no tokenizer.
_LARK = '%llguidance {"no_forcing": true}\nstart: %json '

_DEFINITION = "#/$defs/"
_STRINGS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "pattern": lambda pattern: {"type": "string", "pattern": rust_pattern(pattern)},
    "format": with_format,
    "contentEncoding": with_encoding,
}


@dataclass(frozen=True)
class JsonSchema:
    """A schema that an answer can be held to.

    Attributes:
        grammar: what llguidance's matcher is made from.
    """

    grammar: str


def json_schema(schema: Union[str, bool, dict[str, Any]]) -> JsonSchema:
    """Checks a schema.

    Args:
        schema: the schema, or its JSON.

    Raises:
        ValueError: not JSON, not a schema, or a schema that cannot be enforced: with the keyword and its place.
    """
    try:
        core = _Core(_parsed(schema))
        whole = core.whole(core.root)
        reason = _refusal(whole)
        if reason:
            raise ValueError(core.refusal() or _message("#", reason))
        return JsonSchema(_grammar(whole))
    except RecursionError:  # of Python's json
        raise ValueError(f"JSON schema nests too deep, expected at most {MAX_DEPTH} levels") from None


def _parsed(schema: Union[str, bool, dict[str, Any]]) -> Any:
    """The schema as JSON says it: NaN, infinity and keys that are no strings are not JSON."""
    is_text = isinstance(schema, str)
    if not is_text:
        _check_size(schema)  # before it is written: parts that are shared would be written again and again
    try:
        text = schema if isinstance(schema, str) else json.dumps(schema, allow_nan=False)
        document = json.loads(text, parse_constant=_no_constant) if len(text) <= MAX_SCHEMA_CHARS else None
    except (TypeError, ValueError) as error:
        raise ValueError(f"JSON schema is not JSON: {error}") from error
    if len(text) > MAX_SCHEMA_CHARS:
        raise ValueError(f"JSON schema has {len(text)} characters, expected at most {MAX_SCHEMA_CHARS}")
    if is_text:
        _check_size(document)
    return document


def _check_size(document: Any) -> None:
    """Refuses what llguidance would take the stack or very long for."""
    n_parts, n_states, todo = 0, Fraction(1), [("#", document)]
    while todo:
        where, part = todo.pop()
        n_parts += 1
        if n_parts > MAX_PARTS:
            raise ValueError(f"JSON schema has more than {MAX_PARTS} values")
        if isinstance(part, dict):
            for keyword, n_most in (("", MAX_NAMES), ("patternProperties", MAX_PATTERNS), ("required", MAX_NAMES)):
                names = part.get(keyword) if keyword else part
                if isinstance(names, (dict, list)) and len(names) > n_most:
                    said = f'keyword "{keyword}" has' if keyword else "an object has"
                    raise ValueError(_message(where, f"{said} {len(names)} names, expected at most {n_most}"))
            factor = part.get("multipleOf")
            if isinstance(factor, (int, float)) and not isinstance(factor, bool) and 0 < factor <= MAX_EXACT:
                n_states *= max(1, Fraction(str(factor)).numerator)
                if n_states > MAX_STATES:
                    said = f'keyword "multipleOf" is {shown(factor)}'
                    raise ValueError(_message(where, said, f"all together may come to {MAX_STATES}"))
            todo += [(f"{where}/{_escaped(str(name))}", value) for name, value in part.items()]
        elif isinstance(part, (list, tuple)):
            todo += [(f"{where}/{i}", value) for i, value in enumerate(part)]


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


@functools.cache
def _options() -> dict[str, str]:
    """The options that the installed llguidance knows."""
    every = {**_OPTIONS, **_NAMES_AS_THEY_ARE}
    grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps({"x-guidance": every}))
    return _OPTIONS if "unknown field" in llguidance.LLMatcher.validate_grammar(grammar, None) else every


def _grammar(core: Any) -> str:
    lark = _LARK + json.dumps({"x-guidance": _options(), **_object(core)})
    return str(llguidance.LLMatcher.grammar_from_lark(lark))


def _object(core: Any) -> dict[str, Any]:
    """A boolean schema as an object."""
    if isinstance(core, bool):
        return {} if core else {"enum": []}
    found: dict[str, Any] = core
    return found


def _refusal(core: Any) -> str:
    """llguidance's reason for refusing a core schema in one line; empty when it takes it."""
    grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(_object(core)))
    said = llguidance.LLMatcher.validate_grammar(grammar, None)
    return "" if said.startswith("WARNING") else one_line(said)


def one_line(said: str) -> str:
    """The first MAX_REASON_CHARS of an error message of llguidance; the picture of a regex is left out."""
    if "oneOf constraints are not supported" in said:
        return 'nothing tells its choices apart, such as a type or a constant; "anyOf" takes them'
    lines = [" ".join(line.split()) for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    line = (errors or lines or [""])[0].replace("error: ", "", 1)
    return line.rpartition("failed to compile JSON schema: ")[2][:MAX_REASON_CHARS]


class _Core:
    """The core schema of one document.

    Attributes:
        root: its top.
    """

    def __init__(self, document: Any) -> None:
        self._document = document
        self._names: dict[str, str] = {}  # of a reference's target, by pointer
        self._definitions: dict[str, Any] = {}
        self._places: list[tuple[str, str, dict[str, Any]]] = []  # (place, what is said of it, schema), innermost first
        self._open: list[str] = []  # references being followed without a step into a value
        self.root = self._schema(document, "#", 0)

    def whole(self, core: Any) -> Any:
        """A core schema with the definitions that it refers to."""
        needed: dict[str, Any] = {}
        stack = [core]
        while stack:
            part = stack.pop()
            for value in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
                name = value.rpartition("/")[2] if isinstance(value, str) and value.startswith(_DEFINITION) else ""
                if name in self._definitions and name not in needed:
                    needed[name] = self._definitions[name]
                    stack.append(needed[name])
                elif isinstance(value, (dict, list)):
                    stack.append(value)
        return {"$defs": needed, **core} if needed else core

    def refusal(self) -> str:
        """The innermost schema that llguidance refuses, and the keyword without which it would not."""
        left = MAX_SEARCH_CHARS
        for where, said, core in self._places:
            if core.keys() <= {"type"}:
                continue
            whole = self.whole(core)
            left -= 500 + len(json.dumps(whole))
            if left < 0:
                break
            reason = _refusal(whole)
            if not reason:
                continue
            for keyword in [name for name in core if name != "type" and not said]:
                if not _refusal(self.whole({name: core[name] for name in core if name != keyword})):
                    said = f'keyword "{keyword}" cannot be enforced'
                    break
            return _message(where, said or "cannot be enforced", reason)
        return ""

    def _schema(self, node: Any, where: str, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError(_message(where, f"schemas nest deeper than {MAX_DEPTH} levels"))
        if isinstance(node, bool):
            return node
        if not isinstance(node, dict):
            raise ValueError(_message(where, f"a schema is {shown(node)}, expected an object or a boolean"))
        core: dict[str, Any] = {}
        for keyword, value in node.items():
            if keyword in ANNOTATIONS or (keyword in ("$id", "id") and where == "#" and isinstance(value, str)):
                continue
            if any(value == nothing and type(value) is type(nothing) for nothing in REFUSED.get(keyword, ())):
                continue
            if keyword in REFUSED:
                raise ValueError(_message(where, f'keyword "{keyword}" is not supported'))
            if keyword not in CHECKS and keyword.startswith("x-"):  # OpenAPI's extensions
                continue
            if keyword not in CHECKS:
                raise ValueError(_message(where, unknown_keyword(keyword)))
            complaint = CHECKS[keyword](value)
            if complaint:
                raise ValueError(_message(where, f'keyword "{keyword}" is {shown(value)}, {complaint}'))
            core.update(self._keyword(keyword, value, where, depth))
        self._check_together(node, where)
        self._add_strings(node, core, where)
        if core.get("patternProperties") and core.get("properties"):
            _add_patterns(core)
        self._places.append((where, "", core))
        return core

    def _keyword(self, keyword: str, value: Any, where: str, depth: int) -> dict[str, Any]:
        """What a keyword becomes."""
        place = f"{where}/{_escaped(keyword)}"
        if keyword == "$ref":
            return {"$ref": self._reference(value, where, depth)}
        if keyword in ("allOf", "anyOf", "oneOf"):
            return {keyword: [self._schema(part, f"{place}/{i}", depth + 1) for i, part in enumerate(value)]}
        opened, self._open = self._open, []  # from here on a value is between a schema and the next
        try:
            if keyword in ONE or (keyword == "items" and not isinstance(value, list)):
                return {keyword: self._schema(value, place, depth + 1)}
            if keyword in MAPS:
                return {keyword: self._map(keyword, value, where, depth)}
            if keyword in ("prefixItems", "items"):  # a list of items is what prefixItems was before 2020-12
                parts = [self._schema(part, f"{place}/{i}", depth + 1) for i, part in enumerate(value)]
                return {"prefixItems": parts}
            if keyword == "additionalItems":
                return {"items": self._schema(value, place, depth + 1)}
            if keyword in COUNTS:
                return {keyword: int(value)}
            return {keyword: value} if keyword not in _STRINGS else {}
        finally:
            self._open = opened

    def _add_strings(self, node: dict[str, Any], core: dict[str, Any], where: str) -> None:
        """What strings must match is said in allOf, each on its own; other types are free of it."""
        parts = []
        for keyword, part_of in _STRINGS.items():
            if keyword in node:
                said = f'keyword "{keyword}" is {shown(node[keyword])}'
                try:
                    parts.append(part_of(node[keyword]))
                except ValueError as error:
                    raise ValueError(_message(where, said, str(error))) from None
                self._places.append((where, said, parts[-1]))
        if parts and node.get("type") != "string":
            parts = [{"anyOf": [{"allOf": parts}, {"type": [kind for kind in TYPES if kind != "string"]}]}]
        if parts:
            core["allOf"] = [*core.get("allOf", ()), *parts]

    def _map(self, keyword: str, value: dict[str, Any], where: str, depth: int) -> dict[str, Any]:
        parts: dict[str, Any] = {}
        for name, part in value.items():
            key = name
            if keyword == "patternProperties":
                try:
                    key = rust_pattern(name)
                except ValueError as error:
                    raise ValueError(_message(where, f'keyword "{keyword}" has {shown(name)}', str(error))) from None
            if key in parts:
                raise ValueError(_message(where, f'keyword "{keyword}" has {shown(name)} twice'))
            parts[key] = self._schema(part, f"{where}/{keyword}/{_escaped(name)}", depth + 1)
        return parts

    def _reference(self, pointer: str, where: str, depth: int) -> str:
        if pointer in self._open:
            raise ValueError(_message(where, f'keyword "$ref" is {shown(pointer)}, which leads back to itself'))
        if pointer not in self._names:
            self._names[pointer] = str(len(self._names))
            target = self._target(pointer, where)
            self._open.append(pointer)
            self._definitions[self._names[pointer]] = self._schema(target, pointer, depth + 1)
            self._open.remove(pointer)
        return _DEFINITION + self._names[pointer]

    def _target(self, pointer: str, where: str) -> Any:
        """What a reference inside the document points at."""
        said = f'keyword "$ref" is {shown(pointer)}'
        if pointer != "#" and not pointer.startswith("#/"):
            raise ValueError(_message(where, f'{said}, expected "#" or a place in this schema such as "#/$defs/name"'))
        target = self._document
        for part in pointer.split("/")[1:]:
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(target, list) and name.isascii() and name.isdigit() and int(name) < len(target):
                target = target[int(name)]
            elif isinstance(target, dict) and name in target:
                target = target[name]
            else:
                raise ValueError(_message(where, f"{said}, which is not in this schema"))
        return target

    def _check_together(self, node: dict[str, Any], where: str) -> None:
        """Keywords that mean something only beside others."""
        listed = isinstance(node.get("items"), list)
        if "additionalItems" in node and not listed:
            raise ValueError(_message(where, 'keyword "additionalItems" stands without a list of "items"'))
        if listed and "prefixItems" in node:
            raise ValueError(_message(where, 'keyword "items" is a list beside "prefixItems", expected one of them'))
        # a name that is not in properties may come twice, which counts once
        least, named = node.get("minProperties", 0), len(set(node.get("required", ())))
        if least > max(1, named) and (node.get("additionalProperties") is not False or "patternProperties" in node):
            raise ValueError(
                _message(where, f'keyword "minProperties" is {least}, expected at most 1 or the number of "required"')
            )


def _add_patterns(core: dict[str, Any]) -> None:
    """Properties match the schemas of their names' patterns too, which llguidance 1.3 forgets."""
    properties = core.get("properties", {})
    for pattern, schema in core.get("patternProperties", {}).items():
        for name in _matching(pattern, properties):
            properties[name] = {"allOf": [properties[name], schema]}


def _matching(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that a pattern matches, by llguidance, which needs linear time where Python's ``re`` may not."""
    grammar = llguidance.LLMatcher.grammar_from_json_schema({"type": "string", "pattern": pattern})
    matcher = llguidance.LLMatcher(llguidance.LLTokenizer("byte"), grammar, log_level=0)
    found = []
    for name in names:
        text = list(json.dumps(name, ensure_ascii=False).encode("utf-8", "replace"))
        if matcher.reset() and matcher.try_consume_tokens(text) == len(text) and matcher.is_accepting():
            found.append(name)
    return found


def _message(where: str, *parts: str) -> str:
    place = where if where.isprintable() else ascii(where)[1:-1]
    return f"JSON schema at {place}: {': '.join(part for part in parts if part)}"


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
