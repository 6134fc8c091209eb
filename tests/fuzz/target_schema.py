"""JSON schemas: refused with a ValueError in one line, or an answer that ended by itself is JSON."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, Callable

from fuzz.lies import VALUES, change_json
from tiny_gguf import TinyConfig, write_tiny_gguf

from lazygguf import LazyModel

TYPES = ["object", "array", "string", "number", "integer", "boolean", "null"]
WORDS = ["a", "b", "name", 'q"uote', "back\\slash", "é", "\n", ""]
PATTERNS = ["^a+$", r"^\d{2,4}$", r"^\w\.\s?$", "^[^a-z]{1,3}$", "^(a|b)*c$", "[", "^a{5,2}$", "$"]


def open_target(folder: Path) -> Callable[[random.Random], None]:
    path = folder / "model.gguf"
    write_tiny_gguf(path, TinyConfig(n_layer=1, n_embd=32, n_head=2, n_head_kv=1, n_ff=32))
    model = LazyModel(path, n_ctx=128, n_threads=1, keep="off", verbose=False)

    def run(rng: random.Random) -> None:
        given: Any = schema(rng, 3)
        if rng.random() < 0.5:
            given = change_json(rng, given)
        if rng.random() < 0.5:
            asked = {"type": "json_object", "schema": given}
        else:
            asked = {"type": "json_schema", "json_schema": {"name": "x", "schema": given}}
        try:
            answer = model.create_completion(
                "a", max_tokens=24, temperature=1.0, seed=rng.getrandbits(31), response_format=asked
            )
        except ValueError as error:
            assert str(error) and "\n" not in str(error), (given, error)
            return
        choice = answer["choices"][0]
        if choice["finish_reason"] == "stop":
            json.loads(choice["text"])

    return run


def schema(rng: random.Random, depth: int) -> dict[str, Any]:
    """A schema of up to so many levels, mostly a valid one."""
    kind = rng.choice(TYPES)
    made: dict[str, Any] = {"type": kind}
    if kind == "object" and depth:
        names = rng.sample(WORDS, rng.randint(0, 3))
        made["properties"] = {name: schema(rng, depth - 1) for name in names}
        made["required"] = [name for name in names if rng.random() < 0.7]
        if rng.random() < 0.5:
            made["additionalProperties"] = rng.choice([True, False, schema(rng, 0)])
    elif kind == "array" and depth:
        made["items"] = schema(rng, depth - 1)
        made.update(pick(rng, minItems=rng.randint(0, 2), maxItems=rng.randint(0, 3), uniqueItems=True))
    elif kind == "string":
        made.update(pick(rng, minLength=rng.randint(0, 3), maxLength=rng.choice([0, 2, 5, 300])))
        made.update(pick(rng, pattern=rng.choice(PATTERNS), format=rng.choice(["date", "time", "uuid", "x"])))
    elif kind in ("number", "integer"):
        made.update(pick(rng, minimum=rng.randint(-5, 5), exclusiveMaximum=rng.randint(0, 9), multipleOf=2))
    if rng.random() < 0.2:
        made = {rng.choice(["anyOf", "oneOf", "allOf"]): [made, schema(rng, max(0, depth - 1))]}
    if rng.random() < 0.2:
        made[rng.choice(["enum", "const", "default"])] = rng.choice([[1, "a"], WORDS, rng.choice(VALUES)])
    if rng.random() < 0.1:
        made = {"$defs": {"x": made}, "$ref": rng.choice(["#/$defs/x", "#", "#/$defs/y", "http://localhost/x"])}
    return made


def pick(rng: random.Random, **keywords: Any) -> dict[str, Any]:
    return {name: value for name, value in keywords.items() if rng.random() < 0.3}
