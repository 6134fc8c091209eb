"""PyTorch files are read without PyTorch, and a pickle that asks for more than tensors runs nothing."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from convert.checkpoint_files import Pickle, TorchView, as_float, stored, write_raw_torch, write_torch
from convert.tiny_checkpoints import Spec, hf_weights, write_hf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lazygguf.tools.convert.tensors.pickle_machine import Refused, run_pickle
from lazygguf.tools.convert.tensors.pickle_tensors import open_torch

from lazygguf.errors import ModelFileError


def read(path: Path) -> dict[str, np.ndarray]:
    return {name: as_float(source.rows(0, source.shape[0]), source.dtype) for name, source in open_torch(path).items()}


@pytest.mark.parametrize("parameters", [False, True])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_a_state_dict_gives_its_tensors(dtype: str, parameters: bool, tmp_path: Path) -> None:
    weights = hf_weights(Spec())
    write_torch(tmp_path / "a.bin", weights, dtype, parameters=parameters)
    found = read(tmp_path / "a.bin")
    assert list(found) == list(weights)
    for name, values in weights.items():
        assert np.array_equal(found[name], as_float(stored(values, dtype), dtype)), name


def test_strided_views_of_a_storage_are_read_with_their_strides(tmp_path: Path) -> None:
    storage = np.arange(64, dtype=np.float32)
    views = {
        "transposed": TorchView(storage, 0, (8, 8), (1, 8)),
        "offset": TorchView(storage, 16, (4, 8), (8, 1)),
        "every second column": TorchView(storage, 1, (8, 4), (8, 2)),
        "broadcast": TorchView(storage, 3, (4, 5), (0, 1)),
    }
    write_torch(tmp_path / "a.bin", views)
    found = read(tmp_path / "a.bin")
    square = storage.reshape(8, 8)
    assert np.array_equal(found["transposed"], square.T)
    assert np.array_equal(found["offset"], square[2:6])
    assert np.array_equal(found["every second column"], square[:, 1::2])
    assert np.array_equal(found["broadcast"], np.tile(storage[3:8], (4, 1)))


def test_a_checkpoint_of_transposed_views_converts_to_the_same_file(
    tmp_path: Path, convert: Callable[..., int]
) -> None:
    spec = Spec()
    weights = hf_weights(spec)
    views = {
        name: TorchView(np.ascontiguousarray(values.T), 0, values.shape, (1, values.shape[0]))
        if values.ndim == 2
        else values
        for name, values in weights.items()
    }
    write_hf(tmp_path / "plain", spec)
    write_hf(tmp_path / "views", spec, form="bin", weights=views)
    for kind in ("plain", "views"):
        convert(tmp_path / kind, "--outfile", tmp_path / f"{kind}.gguf", "--name", "same")
    assert (tmp_path / "plain.gguf").read_bytes() == (tmp_path / "views.gguf").read_bytes()


def test_files_of_pytorch_itself_are_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="the extra test-hf is not installed")
    base = torch.arange(48, dtype=torch.float32).reshape(6, 8)
    state = {
        "plain": base,
        "transposed": base.t(),
        "row": base[2],
        "half": base.half(),
        "bf16": base.bfloat16(),
        "parameter": torch.nn.Parameter(base),
        "shared": base[1:3],
    }
    torch.save(state, tmp_path / "a.bin")
    found = read(tmp_path / "a.bin")
    for name, tensor in state.items():
        assert np.array_equal(found[name], tensor.detach().float().numpy()), name


class Evil:
    """Pickles to a call of os.system."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def test_a_pickle_that_calls_a_program_is_refused_by_name_and_nothing_runs(
    tmp_path: Path, convert: Callable[..., int]
) -> None:
    marker = tmp_path / "ran"
    folder = write_hf(tmp_path / "hf", Spec(), form="bin")
    for protocol in range(6):
        evil = pickle.dumps({"model.norm.weight": Evil(marker)}, protocol=protocol)
        write_raw_torch(folder / "pytorch_model.bin", evil, [])
        with pytest.raises(ModelFileError, match=r"(posix|nt)\.system.*nothing of it was run"):
            convert(folder, "--outfile", tmp_path / "out.gguf")
    assert not marker.exists()
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize(
    "name",
    [
        "os system",
        "builtins eval",
        "builtins exec",
        "builtins getattr",
        "torch load",
        "torch._utils _import_dotted_name",
        "collections namedtuple",
        "torch.FloatStorage __class__",
        "functools partial",
        "lazygguf.tools.convert.command run",
    ],
)
def test_every_other_global_is_refused_by_name(name: str, tmp_path: Path) -> None:
    module, attribute = name.split(" ")
    script = Pickle()
    script.name(module, attribute)
    script.raw(b")R")
    write_raw_torch(tmp_path / "a.bin", script.done(), [])
    with pytest.raises(ModelFileError, match=f"{module}.{attribute}".replace(".", r"\.")):
        open_torch(tmp_path / "a.bin")


@pytest.mark.parametrize(
    ("opcodes", "named"),
    [
        (b"(i__main__\nX\n", "INST"),
        (b"\x82\x01", "EXT1"),
        (b")\x81", "NEWOBJ"),
        (b"\x8f", "EMPTY_SET"),
        (b"PXX\n", "PERSID"),
        (b"2", "DUP"),
    ],
)
def test_opcodes_that_torch_save_never_writes_are_refused_by_name(opcodes: bytes, named: str, tmp_path: Path) -> None:
    write_raw_torch(tmp_path / "a.bin", b"\x80\x02" + opcodes + b".", [])
    with pytest.raises(ModelFileError, match=named):
        open_torch(tmp_path / "a.bin")


def _state(n: int, shape: tuple[int, ...], strides: tuple[int, ...], first: int = 0, claimed: int | None = None) -> Any:
    script = Pickle()
    script.begin_dict()
    script.text("w")
    storage = np.zeros(n, np.float32)
    script.tensor("FloatStorage", "0", TorchView(storage, first, shape, strides), n if claimed is None else claimed)
    script.end_dict()
    return script.done(), [storage]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((16, (5, 4), (4, 1)), "leaves its storage"),
        ((16, (4, 4), (4, 1), 1), "leaves its storage"),
        ((16, (2, 2), (1 << 61, 1)), "leaves its storage"),
        ((16, (4, 4), (-4, 1)), "strides"),
        ((16, (4, 4), (4,)), "strides"),
        ((16, (1 << 40,), (1,)), "leaves its storage"),
        ((16, (4, 4), (4, 1), 0, 1 << 40), "claims 1099511627776 elements"),
    ],
)
def test_a_tensor_outside_of_its_storage_is_refused(arguments: Any, message: str, tmp_path: Path) -> None:
    write_raw_torch(tmp_path / "a.bin", *_state(*arguments))
    with pytest.raises(ModelFileError, match=message):
        open_torch(tmp_path / "a.bin")


def test_memo_bombs_and_endless_pickles_end_at_once(tmp_path: Path) -> None:
    # LONG_BINPUT 2^31 - 1: CPython's unpickler would allocate 32 GB for it; here it is an empty state dict
    write_raw_torch(tmp_path / "a.bin", b"\x80\x02}r\xff\xff\xff\x7f.", [])
    assert open_torch(tmp_path / "a.bin") == {}
    bombs = [
        b"\x80\x02X\xff\xff\xff\x7fabc.",  # a string longer than the pickle
        b"\x80\x02\x8b\xff\xff\xff\x7fabc.",
        b"\x80\x02}",
        b"",
        b"\x80\x02(((((.",
        b"\x80\x02" + b"]" * 100 + b"a" * 99 + b".",
    ]
    for data in bombs:
        write_raw_torch(tmp_path / "a.bin", data, [])
        with pytest.raises(ModelFileError):
            open_torch(tmp_path / "a.bin")


def test_an_archive_that_is_compressed_or_cut_or_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    data, storages = _state(4096, (64, 64), (64, 1))
    write_raw_torch(path, data, storages, zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelFileError, match="compressed"):
        open_torch(path)
    write_raw_torch(path, data, storages)
    whole = path.read_bytes()
    for size in (1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelFileError):
            open_torch(path)
    path.write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(ModelFileError, match="bare pickle"):
        open_torch(path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ModelFileError, match="git lfs pull"):
        open_torch(path)
    path.write_bytes(b"")
    with pytest.raises(ModelFileError, match="empty"):
        open_torch(path)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_corrupted_pickle_does_anything_but_fail(data: st.DataObject) -> None:
    script, _ = _state(16, (4, 4), (4, 1))
    damaged = bytearray(script)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    before = {name for name in sys.modules if not name.startswith("encodings")}

    def find(module: str, name: str) -> Any:
        raise Refused(f"{module}.{name}")

    with contextlib.suppress(Refused):
        run_pickle(bytes(damaged), find, lambda pid: pid)
    assert {name for name in sys.modules if not name.startswith("encodings")} == before
