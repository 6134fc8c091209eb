"""Sessions saved after any use: one that is restored goes on as the saved one would, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from saved_sessions import CONFIG, load_bytes, new_session, saved_bytes, saved_uses, schedules, seen, use
from session_ops import Op
from tiny_gguf import TinyConfig

from lazygguf import KeepSchedule
from lazygguf._ffi import NativeModel

QUICK = settings(max_examples=100, deadline=None, derandomize=True)


@pytest.fixture(scope="module", params=["fast", "as-is"])
def model(request: pytest.FixtureRequest, tiny_model: Callable[[TinyConfig], tuple[Path, Any]]) -> NativeModel:
    return NativeModel(tiny_model(CONFIG)[0], weights=request.param)


@QUICK
@given(
    schedule=st.none() | schedules(),
    before=saved_uses(),
    other=saved_uses(max_size=2),
    after=saved_uses(),
    kv_type=st.sampled_from(["f16", "f32"]),
)
def test_a_restored_session_goes_on_as_the_saved_one(
    model: NativeModel, schedule: KeepSchedule | None, before: list[Op], other: list[Op], after: list[Op], kv_type: str
) -> None:
    session, restored = new_session(model, schedule, kv_type), new_session(model, schedule, kv_type)
    marked: list[int] = []
    for seed, op in enumerate(before):
        use(session, schedule, op, seed, marked)
    for seed, op in enumerate(other):  # what the one that restores held before does not matter
        use(restored, schedule, op, 1000 + seed, [])
    data = saved_bytes(session)
    load_bytes(restored, data)
    assert seen(restored) == seen(session)
    assert saved_bytes(restored) == data
    again = list(marked)
    for seed, op in enumerate([("back",), ("eval", 1, None), *after]):
        use(session, schedule, op, 2000 + seed, marked)
        use(restored, schedule, op, 2000 + seed, again)
        assert seen(restored) == seen(session)
