"""Profiles with a wrong value in any place: a sentence, never another exception."""

import copy
import json
import math
from collections.abc import Iterator
from typing import Any, Union

import pytest

from lazygguf.errors import ModelFileError
from lazygguf.schedule.keep import resolve_keep
from lazygguf.schedule.keep_schedule import PROFILE_KEY, KeepSchedule
from lazygguf.schedule.scoring import SCORING_KEY, ScoringProfile, resolve_scoring

N_LAYER, N_HEAD = 8, 4
KEEP: dict[str, Any] = KeepSchedule.parse("2:0.5,5:0.3", mass=0.9, keep_min=0.1).to_dict()
KEEP["points"][1].update(heads=[[4, 1], [5, 0], 3], n_query="question", pool=3)
SCORING: dict[str, Any] = {
    **{"layers": [4, 6], "heads": {"4": [0, 1], "6": [2]}, "n_query": 24, "over_query": "max", "pool": [10, 5]},
    **{"model": {"name": "x"}, "measurements": {}},
}
INFINITE = (math.nan, math.inf, -math.inf)
NUMBERS = (-1, 0, 3, 2**31, 2**63, 10**400, 1e308, -1e308, 1.5, *INFINITE)
WRONG: list[Any] = [
    None,
    True,
    False,
    "",
    "x",
    "3",
    "\ud800",
    *NUMBERS,
    [],
    {},
    [[]],
    [None],
    ["x"],
    [True],
    [math.nan],
    {"x": 1},
]
MANY = [[1, 2, 3], [1] * 100, [[[0]]], {"4": None}, {"4": [[]]}, {"4": {"x": 1}}, {"x": [1]}, {"4": "1"}]
METADATA = {"general.architecture": "llama", "llama.block_count": N_LAYER, "llama.attention.head_count": N_HEAD}


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield from places(value[key], (*at, key))


def wrong_ones(profile: dict[str, Any]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for place in places(profile):
        for value in (*WRONG, *MANY):
            changed: Any = copy.deepcopy(profile)
            if not place:
                yield place, value
                continue
            inner = changed
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = value
            yield place, changed


def read(profile: Any, cls: Union[type[KeepSchedule], type[ScoringProfile]]) -> None:
    cls.from_dict(profile).validate(N_LAYER, N_HEAD)


@pytest.mark.parametrize(("profile", "cls"), [(KEEP, KeepSchedule), (SCORING, ScoringProfile)])
def test_every_value_of_a_profile_may_be_wrong(
    profile: dict[str, Any], cls: Union[type[KeepSchedule], type[ScoringProfile]]
) -> None:
    read(profile, cls)
    n_refused = n_taken = 0
    for place, changed in wrong_ones(profile):
        try:
            read(changed, cls)
            n_taken += 1
        except ValueError as error:
            n_refused += 1
            assert "\n" not in str(error)
        except Exception as error:
            raise AssertionError(f"{'.'.join(map(str, place))}: {changed!r}") from error
    assert n_refused > 3 * n_taken > 0


def of_file(profile: Any) -> None:
    resolve_keep("auto", n_layer=N_LAYER, n_head=N_HEAD, metadata={PROFILE_KEY: profile})


@pytest.mark.parametrize("heads", [None, [[0, 1]], [0]])
@pytest.mark.parametrize("il", ["4", None, 4.0, True, math.nan, [4], {"x": 1}, 10**20])
def test_a_layer_of_the_wrong_type_is_named(il: Any, heads: Any) -> None:
    profile = {"points": [{"il": il, "keep": 0.5, "heads": heads}]}
    with pytest.raises(ValueError, match="il is "):
        KeepSchedule.from_json(json.dumps(profile))
    with pytest.raises(ModelFileError, match=f"metadata key {PROFILE_KEY}.*il is .*ignores it"):
        of_file(json.dumps(profile))


@pytest.mark.parametrize("value", [3, 1.5, True, [1, 2], "", "null", "[]", "{}", '{"points": {}}', "\udcff"])
def test_metadata_that_is_no_profile_names_its_key(value: Any) -> None:
    with pytest.raises(ModelFileError, match=PROFILE_KEY):
        of_file(value)
    with pytest.raises(ModelFileError, match=SCORING_KEY):
        resolve_scoring(None, {**METADATA, SCORING_KEY: value})
