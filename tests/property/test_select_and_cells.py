"""Selection and cell maps, through sessions: whatever the schedule and use, they do what the reference does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from session_ops import CONFIG, Op, schedules, uses
from session_reference import Opened, assert_same_use
from tiny_gguf import TinyConfig

from lazygguf import KeepSchedule
from lazygguf._ffi import NativeModel


@pytest.fixture(scope="module")
def opened(tiny_model: Callable[[TinyConfig], tuple[Path, Any]]) -> Opened:
    path, weights = tiny_model(CONFIG)
    return NativeModel(path), weights


@settings(max_examples=250, deadline=None, derandomize=True)
@given(schedule=schedules(), ops=uses(), n_ubatch=st.sampled_from([1, 3, 8, 64]))
def test_every_use_keeps_computes_and_revives_as_the_reference_does(
    opened: Opened, schedule: KeepSchedule, ops: list[Op], n_ubatch: int
) -> None:
    assert_same_use(opened, schedule, ops, n_ubatch)
