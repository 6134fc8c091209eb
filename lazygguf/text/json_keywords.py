"""The keywords of a JSON schema: which are obeyed, which are refused, and which values each may have.

Owns the lists of JSON Schema 2020-12 and draft 7, and the words in which a wrong value is refused. What a keyword
becomes is json_schema's business.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator
from typing import Any, Callable, Union

from .json_strings import FORMATS

MAX_EXACT = 2**53  # llguidance holds numbers as float64

# Keywords that say nothing about the value.
_FOR_PEOPLE = ("title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly")
ANNOTATIONS = frozenset((*_FOR_PEOPLE, "discriminator", "$schema", "$comment", "$anchor", "$defs", "definitions"))
# Keywords that no grammar enforces here, and values with which they say nothing.
REFUSED: dict[str, tuple[Any, ...]] = {
    "not": (False,),
    "if": (),
    "then": (),
    "else": (),
    "contains": (),
    "minContains": (),
    "maxContains": (),
    "uniqueItems": (False,),
    "unevaluatedItems": (True, {}),
    "unevaluatedProperties": (True, {}),
    "propertyNames": (True, {}),
    "dependencies": ({},),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
    "$dynamicRef": (),
    "$dynamicAnchor": (),
    "$recursiveRef": (),
    "$recursiveAnchor": (False,),
    "$vocabulary": (),
    "contentMediaType": (),
    "contentSchema": (),
    "nullable": (False,),
    "$id": (),
    "id": (),
    "x-guidance": (),
}
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")

COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
ONE = ("additionalProperties",)
LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
MAPS = ("properties", "patternProperties")


def shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def unknown_keyword(keyword: str) -> str:
    near = difflib.get_close_matches(keyword, [*CHECKS, *ANNOTATIONS], 1)
    return f"keyword {shown(keyword)} is unknown" + (f', did you mean "{near[0]}"?' if near else "")


def _numbers(value: Any) -> Iterator[Union[int, float]]:
    stack = [value]
    while stack:
        part = stack.pop()
        if isinstance(part, (list, dict)):
            stack.extend(part.values() if isinstance(part, dict) else part)
        elif isinstance(part, (int, float)) and not isinstance(part, bool):
            yield part


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_values(value: Any) -> str:
    inexact = any(abs(number) > MAX_EXACT or not math.isfinite(number) for number in _numbers(value))
    return f"expected numbers up to {MAX_EXACT}" if inexact else ""


def _check_bound(value: Any) -> str:
    return "" if _is_number(value) and not _check_values(value) else f"expected a number up to {MAX_EXACT}"


def _check_multiple(value: Any) -> str:
    return _check_bound(value) or ("" if value > 0 else "expected a number above 0")


def _check_count(value: Any) -> str:
    whole = _is_number(value) and float(value).is_integer() and 0 <= value <= 2**31
    return "" if whole else "expected an integer from 0"


def _check_enum(value: Any) -> str:
    return _check_values(value) if isinstance(value, list) and value else "expected a list of values"


def _check_type(value: Any) -> str:
    kinds = value if isinstance(value, list) and value else [value]
    known = all(isinstance(kind, str) and kind in TYPES for kind in kinds)
    return "" if known else f"expected {', '.join(TYPES)} or a list of them"


def _check_format(value: Any) -> str:
    return "" if value in FORMATS else f"expected {', '.join(FORMATS)}"


def _check_names(value: Any) -> str:
    names = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return "" if names else "expected a list of strings"


def _check_text(value: Any) -> str:
    return "" if isinstance(value, str) else "expected a string"


def _check_list(value: Any) -> str:
    return "" if isinstance(value, list) and value else "expected a list of schemas"


def _check_map(value: Any) -> str:
    return "" if isinstance(value, dict) else "expected an object of schemas"


def _check_nothing(value: Any) -> str:
    return ""  # schemas are checked where they are gone through


CHECKS: dict[str, Callable[[Any], str]] = {
    **dict.fromkeys(COUNTS, _check_count),
    **dict.fromkeys(BOUNDS, _check_bound),
    **dict.fromkeys(LISTS, _check_list),
    **dict.fromkeys(MAPS, _check_map),
    **dict.fromkeys((*ONE, "items", "additionalItems"), _check_nothing),
    "multipleOf": _check_multiple,
    "type": _check_type,
    "enum": _check_enum,
    "const": _check_values,
    "pattern": _check_text,
    "format": _check_format,
    "contentEncoding": _check_text,
    "required": _check_names,
    "$ref": _check_text,
}
KEYWORDS = tuple(CHECKS)  # that are obeyed
