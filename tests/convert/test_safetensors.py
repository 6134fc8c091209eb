"""safetensors files: sound ones are read as the format's library reads them, lying ones refused."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from convert.checkpoint_files import as_float, stored, write_raw_safetensors, write_safetensors
from convert.tiny_checkpoints import Spec, hf_weights, write_hf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lazygguf.tools.convert.tensors.safetensors_file import open_safetensors

from lazygguf.errors import LazyError, ModelFileError


def test_files_of_the_safetensors_library_are_read(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy")
    weights = hf_weights(Spec())
    mixed = {
        name: values.astype(np.float16 if i % 2 else np.float32) for i, (name, values) in enumerate(weights.items())
    }
    library.save_file(mixed, tmp_path / "a.safetensors", metadata={"format": "pt"})
    sources = open_safetensors(tmp_path / "a.safetensors")
    assert sources.keys() == mixed.keys()
    for name, values in mixed.items():
        assert np.array_equal(sources[name].rows(0, len(values)), values), name


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_rows_are_read_in_any_blocks(dtype: str, tmp_path: Path) -> None:
    values = hf_weights(Spec())["lm_head.weight"]
    write_safetensors(tmp_path / "a.safetensors", {"w": values}, dtype)
    source = open_safetensors(tmp_path / "a.safetensors")["w"]
    blocks = []
    for begin in range(0, 400, 37):
        blocks.append(np.array(source.rows(begin, min(begin + 37, 400))))
        source.release(begin, min(begin + 37, 400))
    assert np.array_equal(np.concatenate(blocks), stored(values, dtype))
    assert as_float(blocks[0], dtype).shape == (37, 64)


def entry(begin: int, end: int, shape: list[Any], dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


LIES = {
    "overlap": {"a": entry(0, 64, [16]), "b": entry(32, 96, [16])},
    "hole": {"a": entry(0, 32, [8]), "b": entry(64, 128, [16])},
    "starts late": {"a": entry(64, 128, [16])},
    "past the end": {"a": entry(0, 256, [64])},
    "short of the end": {"a": entry(0, 64, [16])},
    "shape larger than the bytes": {"a": entry(0, 128, [64])},
    "huge shape": {"a": entry(0, 128, [1 << 40, 1 << 40])},
    "shape beyond 64 bits": {"a": entry(0, 128, [1 << 70])},
    "backwards": {"a": entry(128, 0, [32])},
    "negative size": {"a": entry(0, 128, [-32])},
    "float size": {"a": entry(0, 128, [32.0])},
    "boolean size": {"a": entry(0, 4, [True])},
    "three offsets": {"a": {"dtype": "F32", "shape": [32], "data_offsets": [0, 64, 128]}},
    "no dtype": {"a": {"shape": [32], "data_offsets": [0, 128]}},
    "unknown dtype": {"a": entry(0, 128, [32], "F33")},
    "dtype that is a list": {"a": entry(0, 128, [32], ["F32"])},
    "entry that is a list": {"a": [1, 2]},
    "list": [1, 2, 3],
    "no JSON": b"{not json",
    "deep JSON": b"[" * 100000,
    "twice the same name": b'{"a":{"dtype":"F32","shape":[32],"data_offsets":[0,128]},'
    b'"a":{"dtype":"F32","shape":[32],"data_offsets":[0,128]}}',
    "invalid UTF-8": b'{"\xff":1}',
}


@pytest.mark.parametrize("lie", list(LIES))
def test_a_lying_header_is_refused(lie: str, tmp_path: Path) -> None:
    write_raw_safetensors(tmp_path / "a.safetensors", LIES[lie], [bytes(128)])
    with pytest.raises(ModelFileError, match=r"a\.safetensors"):
        open_safetensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize("length", [1 << 60, (1 << 64) - 1, 100, 200 * 1000 * 1000])
def test_a_header_length_that_the_file_cannot_hold_is_refused_at_once(length: int, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", length) + b"{}      ")
    start = time.perf_counter()
    with pytest.raises(ModelFileError, match=f"claims {length} bytes"):
        open_safetensors(tmp_path / "a.safetensors")
    assert time.perf_counter() - start < 1.0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"\x01", "too few"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "web page"),
    ],
)
def test_what_is_no_checkpoint_is_told_apart(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(ModelFileError, match=message):
        open_safetensors(tmp_path / "a.safetensors")


def test_a_file_cut_anywhere_is_refused(tmp_path: Path, convert: Callable[..., int]) -> None:
    folder = write_hf(tmp_path / "hf", Spec(n_layer=1))
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for size in range(0, len(whole), 4096):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelFileError):
            convert(folder, "--outfile", tmp_path / "out.gguf")
    assert not list(tmp_path.glob("*out.gguf*"))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_damage_to_the_header_is_refused_or_harmless(data: st.DataObject, tmp_path: Path) -> None:
    header = json.dumps({"a": entry(0, 64, [4, 4]), "b": entry(64, 128, [16])}).encode()
    damaged = bytearray(struct.pack("<Q", len(header)) + header + bytes(128))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, 8 + len(header) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "a.safetensors"
    path.write_bytes(damaged)
    try:
        sources = open_safetensors(path)
    except LazyError:
        return
    for source in sources.values():  # whatever was accepted lies inside the file
        if hasattr(source, "file"):
            assert source.rows(0, source.shape[0]).nbytes <= 128
