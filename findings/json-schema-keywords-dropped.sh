#!/usr/bin/env bash
# llama-cpp-python turns a JSON schema into a grammar and leaves out every keyword that its converter does not know,
# without an error. Some schemas become grammars that no valid value fits: allOf of plain types gives "{}" only, and
# prefixItems beside items is not seen.
#
# Package: llama-cpp-python 0.3.36 (pip compiles it, about 5 minutes on 2 cores, and keeps the result).
# Seen:    2026-11, Linux x86-64: 14 keywords, the bounds of an integer among them.
# Matters: response_format with a schema promises less than it says. The answer has to be validated, or a schema with
#          such keywords refused by name.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq llama-cpp-python==0.3.36
cd "$dir"
venv/bin/python - <<'PYTHON'
import json

from llama_cpp.llama_grammar import json_schema_to_gbnf

INTEGER, TEXT = {"type": "integer"}, {"type": "string"}
LIST = {"type": "array", "items": INTEGER}
OBJECT = {"type": "object", "properties": {"a": INTEGER, "b": INTEGER}, "required": ["a"]}
DROPPED = [
    (INTEGER, {"minimum": 5, "maximum": 6}),
    (INTEGER, {"exclusiveMinimum": 5}),
    (INTEGER, {"exclusiveMaximum": 6}),
    (INTEGER, {"multipleOf": 5}),
    (TEXT, {"not": {"const": "a"}}),
    ({**TEXT, "pattern": "^a+$"}, {"maxLength": 3}),
    (LIST, {"uniqueItems": True}),
    (LIST, {"contains": {"const": 1}}),
    (LIST, {"prefixItems": [TEXT]}),
    (OBJECT, {"minProperties": 2}),
    (OBJECT, {"dependentRequired": {"a": ["b"]}}),
    (OBJECT, {"if": {"properties": {"a": {"const": 1}}}, "then": {"required": ["b"]}}),
]
HELD = [(TEXT, {"maxLength": 3}), (LIST, {"maxItems": 3}), (OBJECT, {"required": ["a", "b"]})]


def grammar(schema):
    return json_schema_to_gbnf(json.dumps(schema))


for schema, keyword in DROPPED:
    print(f"dropped: {json.dumps(keyword)}")
    assert grammar({**schema, **keyword}) == grammar(schema), keyword
for schema, keyword in HELD:
    print(f"held: {json.dumps(keyword)}")
    assert grammar({**schema, **keyword}) != grammar(schema), keyword

both = {"allOf": [{"type": "string", "minLength": 2}, {"maxLength": 3}]}
root = next(line for line in grammar(both).splitlines() if line.startswith("root"))
print(f"{json.dumps(both)} becomes {root}")
assert root.split() == ["root", "::=", '"{"', "space", '"}"', "space"]
PYTHON
