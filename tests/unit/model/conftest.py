"""The tiny model that the tests of ``LazyModel`` open, and ways to ask it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from tiny_gguf import TinyConfig

from lazygguf import KeepSchedule, LazyModel

SCHEDULE = KeepSchedule.parse("1:0.5,3:0.25", min_prompt=0)


@pytest.fixture(scope="module")
def path(tiny_model: Callable[[TinyConfig], tuple[Path, Any]]) -> str:
    return str(tiny_model(TinyConfig(tokenizer="bpe", n_ctx_train=512))[0])


@pytest.fixture
def dense_model(path: str) -> Iterator[LazyModel]:
    # what a lazy context computes depends on what was asked of it before; dense it does not
    with LazyModel(path, n_threads=1, n_ubatch=32, keep="off", type_k="f32", type_v="f32") as opened:
        yield opened


@pytest.fixture
def model(path: str) -> Iterator[LazyModel]:
    with LazyModel(path, n_threads=1, keep=SCHEDULE) as opened:
        yield opened
