"""Sessions of random operations: after every step they hold what ``tests/reference.py`` holds."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Callable

import hypothesis.strategies as st
from hypothesis import Phase, given, seed, settings
from session_ops import CONFIG, Op, schedules, uses
from session_reference import assert_same_use
from tiny_gguf import write_tiny_gguf

from lazygguf import KeepSchedule
from lazygguf._ffi import NativeModel

# Hypothesis makes the operations, so a case is a few sessions.
BATCH = settings(max_examples=10, deadline=None, database=None, phases=(Phase.generate, Phase.shrink))


def open_target(folder: Path) -> Callable[[random.Random], None]:
    weights = write_tiny_gguf(folder / "model.gguf", CONFIG)
    opened = NativeModel(folder / "model.gguf"), weights

    def run(rng: random.Random) -> None:
        @seed(rng.getrandbits(64))
        @BATCH
        @given(schedule=schedules(), ops=uses(max_size=12), n_ubatch=st.sampled_from([1, 3, 8, 64]))
        def same(schedule: KeepSchedule, ops: list[Op], n_ubatch: int) -> None:
            assert_same_use(opened, schedule, ops, n_ubatch)

        same()

    return run
