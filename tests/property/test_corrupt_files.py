"""Damaged model files: bytes flipped, cut, moved and repeated anywhere end no process and hang none.

Each file goes to one long-lived worker (``load_probe``); where it dies, the test fails with the mutation.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import Phase, given, note, settings
from load_probe import STAGES, LoadWorker
from tiny_gguf import TinyConfig, write_tiny_gguf

SMALL: dict[str, Any] = {"n_layer": 3, "n_embd": 32, "n_head": 2, "n_head_kv": 1, "n_ff": 32, "n_vocab": 270}
CONFIGS = [
    TinyConfig(**SMALL),
    TinyConfig(tokenizer="bpe", arch="qwen2", tied=True, **SMALL),
    TinyConfig(weight_type="Q8_0", rope_scaling="yarn", rope_freqs=True, **SMALL),
]
# What a refusal may be. LazyError: weights that are not finite. ValueError: a context that is too small for a prompt.
REFUSALS = {"ModelFileError", "UnsupportedModelError", "LazyError", "MemoryError", "ValueError", "ContextFullError"}
# Numbers that lie well: powers of two and their neighbours, in 4 and 8 bytes, little-endian.
LIES = [n + step for n in (0, 2**7, 2**15, 2**31, 2**32, 2**62, 2**63) for step in (-1, 0, 1)]

Mutation = tuple[Any, ...]


class Whole(bytes):
    """A file before it is damaged, with a short name in a failure's report."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


# No shrinking: every try costs a worker where it dies, and the mutation is printed anyway.
FUZZ = settings(max_examples=400, deadline=None, derandomize=True, phases=(Phase.explicit, Phase.reuse, Phase.generate))


@pytest.fixture(scope="module")
def worker() -> Iterator[LoadWorker]:
    started = LoadWorker()
    yield started
    started.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Whole]:
    path = tmp_path_factory.mktemp("whole") / "model.gguf"
    found = []
    for config in CONFIGS:
        write_tiny_gguf(path, config)
        found.append(Whole(path.read_bytes()))
    return found


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corrupt") / "model.gguf"


# Positions are shares of the file; most mutations go to the metadata, which is its first part.
_PLACE = st.one_of(st.floats(0.0, 0.01), st.floats(0.0, 0.25), st.floats(0.0, 1.0))
_MUTATION = st.one_of(
    st.tuples(st.just("flip"), _PLACE, st.integers(1, 255)),
    st.tuples(st.just("number"), _PLACE, st.sampled_from(LIES), st.sampled_from([4, 8])),
    st.tuples(st.just("cut"), _PLACE),
    st.tuples(st.just("remove"), _PLACE, st.integers(1, 64)),
    st.tuples(st.just("insert"), _PLACE, st.binary(min_size=1, max_size=64)),
    st.tuples(st.just("splice"), _PLACE, _PLACE, st.integers(1, 4096)),
)


def mutate(data: bytes, mutation: Mutation) -> bytes:
    """The file with one change."""
    name, place, *args = mutation
    at = int(place * len(data))
    if name == "flip":
        return data[:at] + bytes(byte ^ args[0] for byte in data[at : at + 1]) + data[at + 1 :]
    if name == "number":
        number = struct.pack("<Q", args[0] % 2**64)[: args[1]]
        return data[:at] + number + data[at + len(number) :]
    if name == "cut":
        return data[:at]
    if name == "remove":
        return data[:at] + data[at + int(args[0]) :]
    if name == "insert":
        return data[:at] + bytes(args[0]) + data[at:]
    source, n = int(args[0] * len(data)), int(args[1])
    return data[:at] + data[source : source + n] + data[at + n :]


def assert_survives(worker: LoadWorker, path: Path, data: bytes) -> None:
    path.write_bytes(data)
    answer = worker.ask(path, [*STAGES, "eval"])
    for stage in (*STAGES, "eval"):
        outcome = answer[stage]
        assert outcome is None or outcome[0] in REFUSALS, (stage, outcome)
        if outcome is not None:
            assert outcome[1] != ""
    if answer["file"] is not None:  # what the container's checks refuse, all refuse
        assert all(answer[stage] is not None for stage in (*STAGES, "eval"))
    if answer["check"] is None:  # and a file that passes all checks loads
        assert answer["native"] is None, answer


@FUZZ
@given(which=st.integers(0, len(CONFIGS) - 1), mutations=st.lists(_MUTATION, min_size=1, max_size=3))
def test_a_damaged_file_is_refused_or_works(
    worker: LoadWorker, models: list[Whole], path: Path, which: int, mutations: list[Mutation]
) -> None:
    data = bytes(models[which])
    for mutation in mutations:
        data = mutate(data, mutation)
    note(f"model {which}: {mutations}")
    assert_survives(worker, path, data)


@FUZZ
@given(which=st.integers(0, len(CONFIGS) - 1), place=st.floats(0.0, 1.0), value=st.integers(0, 14))
def test_a_small_number_anywhere_in_the_metadata_is_refused_or_works(
    worker: LoadWorker, models: list[Whole], path: Path, which: int, place: float, value: int
) -> None:
    """Small counts and types: what turns one valid file into another one."""
    data = bytes(models[which])
    at = int(place * data.index(b"tokenizer.ggml.tokens"))
    note(f"model {which}: byte {at} is {value}")
    assert_survives(worker, path, data[:at] + bytes([value]) + data[at + 1 :])
