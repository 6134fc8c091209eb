#!/usr/bin/env bash
# llguidance refuses keywords of JSON Schema that it does not enforce, but only those of the draft that it takes the
# schema for (2020-12 where there is no $schema). Keywords of another draft and misspelled ones are left out without an
# error, as the specification has it; so is prefixItems beside additionalItems, which is not in the specification. Some
# keywords take more than they should (February 29 of any year, integers beyond 2^53, a name twice for minProperties),
# one takes less (multiples of 0.25 need two decimals).
#
# Package: llguidance 1.9.1 (a wheel).
# Seen:    2026-11, Linux x86-64.
# Matters: a schema that compiles promises less than it says. Check its keywords before.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq llguidance==1.9.1 numpy
cd "$dir"
venv/bin/python - <<'PYTHON'
import json

from llguidance import LLMatcher, LLTokenizer

BYTES = LLTokenizer("byte")
DRAFT_7 = {"$schema": "http://json-schema.org/draft-07/schema#"}


def takes(schema, text):
    matcher = LLMatcher(BYTES, LLMatcher.grammar_from_json_schema(schema), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    data = list(text.encode())
    return matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()


def refused(schema):
    return bool(LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(schema), None))


WIDER = [  # schema, a value that is not valid
    ({**DRAFT_7, "type": "object", "dependentRequired": {"a": ["b"]}}, '{"a":1}'),
    ({**DRAFT_7, "type": "array", "prefixItems": [{"type": "string"}]}, "[1]"),
    ({"type": "array", "prefixItems": [{"type": "string"}], "additionalItems": False}, "[1]"),
    ({"type": "string", "maxlength": 1}, '"ab"'),
    ({"type": "string", "format": "date"}, '"2023-02-29"'),
    ({"const": 9007199254740993}, "9007199254740992"),
    ({"type": "object", "minProperties": 2, "additionalProperties": {"type": "integer"}}, '{"a":1,"a":2}'),
]
NARROWER = [({"type": "number", "multipleOf": 0.25}, "1.5")]
for schema, text in WIDER:
    print(f"{json.dumps(schema)} takes {text}")
    assert takes(schema, text), (schema, text)
for schema, text in NARROWER:
    print(f"{json.dumps(schema)} refuses {text}")
    assert not takes(schema, text), (schema, text)
for keyword in ({"dependentRequired": {"a": ["b"]}}, {"uniqueItems": True}, {"format": "zork"}):
    print(f"{json.dumps(keyword)} is refused")
    assert refused({"type": ["object", "array", "string"], **keyword}), keyword
PYTHON
