"""Wrong values and damaged bytes, drawn from a ``random.Random``."""

from __future__ import annotations

import copy
import random
import struct
from typing import Any

NUMBERS = [n + step for n in (0, 2**7, 2**15, 2**31, 2**32, 2**62, 2**63) for step in (-1, 0, 1)]
VALUES: list[Any] = [
    *(None, True, False, "", "x", "0", "\ud800", "\n\x1b[0m", "a" * 5000, [], {}, [[]], [None], {"x": 1}),
    *(*NUMBERS, 10**30, 0.5, -0.5, 1e308, float("nan"), float("inf"), -float("inf")),
]


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where values stand in JSON; of a long list the first ones."""
    keys: Any = value if isinstance(value, dict) else range(min(len(value), 8)) if isinstance(value, list) else ()
    return [at, *(place for key in keys for place in places(value[key], (*at, key)))]


def change_json(rng: random.Random, value: Any) -> Any:
    """The value with one of its parts replaced, taken away or moved."""
    value = copy.deepcopy(value)
    found = places(value)
    place = rng.choice(found)
    if not place:
        return rng.choice(VALUES)
    inner = value
    for key in place[:-1]:
        inner = inner[key]
    how = rng.randrange(4)
    if how == 0:
        del inner[place[-1]]
    elif how == 1:  # a part of the same file in another place
        other = value
        for key in rng.choice(found):
            if isinstance(other, (dict, list)) and (key in other if isinstance(other, dict) else key < len(other)):
                other = other[key]
        inner[place[-1]] = copy.deepcopy(other)
    else:
        inner[place[-1]] = rng.choice(VALUES)
    return value


def change_bytes(rng: random.Random, data: bytes) -> bytes:
    """One change at one place; most are near the beginning, where files keep their headers."""
    at = int(rng.choice([0.01, 0.25, 1.0]) * rng.random() * len(data))
    how = rng.randrange(7)
    if how == 0:
        return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    if how == 1:
        return data[:at] + bytes([rng.randrange(15)]) + data[at + 1 :]  # small counts and types
    if how == 2:
        number = struct.pack("<Q", rng.choice(NUMBERS) % 2**64)[: rng.choice([4, 8])]
        return data[:at] + number + data[at + len(number) :]
    if how == 3:
        return data[:at]
    if how == 4:
        return data[:at] + data[at + rng.randint(1, 64) :]
    if how == 5:
        return data[:at] + rng.randbytes(rng.randint(1, 64)) + data[at:]
    source, n = rng.randrange(len(data) + 1), rng.randint(1, 4096)
    return data[:at] + data[source : source + n] + data[at + n :]
