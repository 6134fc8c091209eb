"""Containers that are not whole GGUF files: each is refused in one line, and none ends the process.

Every file is opened in a worker process (``load_probe``) through ``NativeFile``, its ``check``, ``NativeModel`` and
``LazyModel``. What other readers of GGUF do not refuse by an error is not written here; ``tests/property`` and
``tests/fuzz`` have such files by chance.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_gguf
from gguf import GGMLQuantizationType, GGUFValueType
from load_probe import STAGES, LoadWorker, assert_refused
from tiny_gguf import Kv, Tensor, TinyConfig, tiny_kv, tiny_weights, write_raw_gguf

CONFIG = TinyConfig(n_layer=3, n_embd=32, n_head=2, n_head_kv=1, n_ff=32, n_vocab=270)
KV = tiny_kv(CONFIG)
TENSORS = {name: Tensor.of(values) for name, values in tiny_weights(CONFIG).items()}
F64, I8, Q4_0 = GGMLQuantizationType.F64, GGMLQuantizationType.I8, GGMLQuantizationType.Q4_0
NOTHING = np.zeros(0, np.uint8)


def header(n_tensors: int = 0, n_kv: int = 0, version: int = 3, order: str = "<") -> bytes:
    return b"GGUF" + struct.pack(order + "IQQ", version, n_tensors % 2**64, n_kv % 2**64)


def string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def u32(value: int) -> Kv:
    return Kv(value, GGUFValueType.UINT32)


def test_the_model_that_the_cases_are_made_from_is_whole(worker: LoadWorker, path: Path) -> None:
    write_raw_gguf(path, KV, TENSORS)
    answer = worker.ask(path, [*STAGES, "eval", "eval without mmap"])
    assert all(answer[stage] is None for stage in answer if stage != "rss_mb"), answer


# ---- 1: no file


def test_a_missing_path_a_folder_and_an_unreadable_file_are_pythons_own_errors(
    worker: LoadWorker, tmp_path: Path
) -> None:
    assert_refused(worker.ask(tmp_path / "none.gguf"), "file", "FileNotFoundError", str(tmp_path / "none.gguf"))
    assert_refused(worker.ask(tmp_path), "file", "IsADirectoryError", str(tmp_path))
    locked = tmp_path / "locked.gguf"
    write_raw_gguf(locked, KV, TENSORS)
    locked.chmod(0)
    if not os.access(locked, os.R_OK):  # root reads everything
        assert_refused(worker.ask(locked), "file", "PermissionError", str(locked))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_and_a_device_are_refused_without_waiting(worker: LoadWorker, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    for path, kind in ((tmp_path / "pipe.gguf", "a pipe"), (Path(os.devnull), "a device")):
        assert_refused(worker.ask(path), "file", "ModelFileError", f"{path}: this is {kind}, expected a file")


# ---- 2: another kind of file

HEADS = {
    "empty": (b"", "the file is empty"),
    "ggml": (b"lmgg" + bytes(60), "convert the original checkpoint to GGUF again"),
    "ggmf": (b"fmgg" + bytes(60), "convert the original checkpoint to GGUF again"),
    "ggjt": (b"tjgg" + bytes(60), "convert the original checkpoint to GGUF again"),
    "html": (b"<!DOCTYPE html><html>not found</html>", "looks like a web page"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    "zip": (b"PK\x03\x04" + bytes(60), "zip archive"),
    "text": (b"hello world, this is no model", 'the magic is not "GGUF"'),
    "3 bytes": (b"GGU", 'the magic is not "GGUF"'),
    "lower case": (b"gguf" + header()[4:], 'the magic is not "GGUF"'),
    "magic only": (b"GGUF", "file is incomplete: need 24 bytes of header, have 4"),
    "23 bytes": (header()[:23], "file is incomplete: need 24 bytes of header, have 23"),
    "version 0": (header(version=0), "GGUF version is 0, expected 2 or 3"),
    "version 1": (header(version=1), "GGUF version is 1, expected 2 or 3"),
    "version 4": (header(version=4), "GGUF version is 4, expected 2 or 3"),
    "version 99": (header(version=99), "GGUF version is 99, expected 2 or 3; convert the model again"),
    "big-endian 3": (header(n_tensors=1, n_kv=1, order=">"), "big-endian"),
    "big-endian 2": (header(version=2, order=">"), "big-endian"),
    "no pairs at all": (header(), "key 'general.architecture' is missing"),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_file_of_another_kind_is_told_what_it_looks_like(worker: LoadWorker, path: Path, name: str) -> None:
    data, said = HEADS[name]
    path.write_bytes(data)
    stage = "check" if "missing" in said else "file"
    assert_refused(worker.ask(path), stage, "ModelFileError", str(path), said)


# ---- 3: lengths that lie

_KEY = string("k")
_ARRAY = _KEY + struct.pack("<I", GGUFValueType.ARRAY)


def array(element: GGUFValueType, n: int) -> bytes:
    return _ARRAY + struct.pack("<IQ", element, n) + bytes(64)


LENGTHS = {
    **{f"n_kv {n}": header(n_kv=n) for n in (-1, -(2**63), 2**62, 2**63 - 1, 10**8)},
    **{f"n_tensors {n}": header(n_tensors=n) for n in (-1, -(2**63), 2**62, 2**63 - 1, 10**8)},
    **{f"n_kv {n}, then bytes": header(n_kv=n) + bytes(4096) for n in (10**8, 2**57)},
    **{f"n_tensors {n}, then bytes": header(n_tensors=n) + bytes(4096) for n in (10**8, 2**54)},
    **{
        f"key of {n} bytes": header(n_kv=1) + struct.pack("<Q", n) + bytes(64) for n in (2**63, 2**64 - 1, 2**40, 2**29)
    },
    **{
        f"string of {n} bytes": header(n_kv=1) + _KEY + struct.pack("<IQ", GGUFValueType.STRING, n) + bytes(64)
        for n in (2**63, 2**64 - 1, 2**40, 2**29, 65)
    },
    "array of 65 bytes": header(n_kv=1) + array(GGUFValueType.UINT8, 65),
    "array of 9 doubles": header(n_kv=1) + array(GGUFValueType.FLOAT64, 9),
    **{f"array of {n} strings": header(n_kv=1) + array(GGUFValueType.STRING, n) for n in (10**9, 2**61, 2**64 - 1, 9)},
    "array of 65 bools": header(n_kv=1) + array(GGUFValueType.BOOL, 65),
    "tensor name of 2^63 bytes": header(n_tensors=1) + struct.pack("<Q", 2**63) + bytes(64),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_a_length_that_lies_is_refused_without_taking_memory(worker: LoadWorker, path: Path, name: str) -> None:
    path.write_bytes(LENGTHS[name])
    answer = worker.ask(path)
    assert_refused(answer, "file", "ModelFileError", str(path), "again")
    assert answer["rss_mb"] < 50


# ---- 4: pairs that may not be


def pairs(*more: tuple[str, Kv]) -> list[tuple[str, Kv]]:
    return [*KV.items(), *more]


PAIRS: dict[str, tuple[Any, str]] = {
    "key twice": (pairs(("general.name", u32(1))), "duplicate key 'general.name'"),
    "empty key": (pairs(("", u32(1))), "is empty"),
    "alignment 0": (pairs(("general.alignment", u32(0))), "alignment 0 is not a power of 2"),
    "alignment 13": (pairs(("general.alignment", u32(13))), "alignment 13 is not a power of 2"),
    "alignment 2^31": (pairs(("general.alignment", u32(2**31))), "data section"),
    "alignment i32": (pairs(("general.alignment", Kv(32, GGUFValueType.INT32))), "must be of type u32 but is i32"),
    "alignment text": (pairs(("general.alignment", Kv("32", GGUFValueType.STRING))), "must be of type u32 but is str"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_that_may_not_be_are_refused(worker: LoadWorker, path: Path, name: str) -> None:
    kv, said = PAIRS[name]
    write_raw_gguf(path, kv, TENSORS)
    assert_refused(worker.ask(path), "file", "ModelFileError", str(path), said)


def test_an_alignment_that_no_file_needs_is_refused_by_its_value(worker: LoadWorker, path: Path) -> None:
    write_raw_gguf(path, pairs(("general.alignment", u32(2**31))), {})
    assert_refused(worker.ask(path), "file", "ModelFileError", "general.alignment is 2147483648, expected at most")


@pytest.mark.parametrize("alignment", [64, 4096])
def test_another_alignment_is_read(
    worker: LoadWorker, path: Path, alignment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_gguf, "_ALIGNMENT", alignment)
    write_raw_gguf(path, pairs(("general.alignment", u32(alignment))), TENSORS)
    answer = worker.ask(path, [*STAGES, "eval"])
    assert all(answer[stage] is None for stage in answer if stage != "rss_mb"), answer


@pytest.mark.parametrize("value_type", [13, 99, 2**31, 2**32 - 1])
def test_an_unknown_value_type_is_refused(worker: LoadWorker, path: Path, value_type: int) -> None:
    signed = value_type - 2**32 if value_type >= 2**31 else value_type
    path.write_bytes(header(n_kv=1) + _KEY + struct.pack("<I", value_type) + bytes(64))
    assert_refused(worker.ask(path), "file", "ModelFileError", f"key 'k' has invalid GGUF type {signed}")
    path.write_bytes(header(n_kv=1) + _ARRAY + struct.pack("<IQ", value_type, 1) + bytes(64))
    assert_refused(worker.ask(path), "file", "ModelFileError", f"key 'k' has invalid GGUF type {signed}")


def test_an_array_of_arrays_is_refused(worker: LoadWorker, path: Path) -> None:
    path.write_bytes(header(n_kv=1) + array(GGUFValueType.ARRAY, 1))
    assert_refused(worker.ask(path), "file", "ModelFileError", "key 'k' has invalid GGUF type 9")


def test_names_with_line_breaks_leave_a_message_of_one_line(worker: LoadWorker, path: Path) -> None:
    write_raw_gguf(path, pairs(("a\nb", u32(1)), ("a\nb", u32(1))), TENSORS)
    assert_refused(worker.ask(path), "file", "ModelFileError", "duplicate key")
    write_raw_gguf(path, {**KV, "general.architecture": Kv("a\nb", GGUFValueType.STRING)}, TENSORS)
    assert_refused(worker.ask(path), "check", "UnsupportedModelError", "architecture")


# ---- 5: tensors that cannot be


def raw(shape: tuple[int, ...], ggml_type: Any = GGMLQuantizationType.F32, offset: int | None = None) -> Tensor:
    """A tensor whose file entry says this, NumPy order, with no data."""
    return Tensor(NOTHING, ggml_type, shape, offset)


def tensor_pairs(*more: tuple[str, Tensor]) -> list[tuple[str, Tensor]]:
    return [*TENSORS.items(), *more]


INFOS: dict[str, tuple[Any, str]] = {
    "tensor twice": (
        tensor_pairs(("output.weight", TENSORS["output.weight"])),
        "duplicate tensor name 'output.weight'",
    ),
    "5 dimensions": (tensor_pairs(("x", raw((1, 1, 1, 1, 1)))), "tensor 'x' has invalid number of dimensions: 5 > 4"),
    "2^32 - 1 dimensions": (None, "has invalid number of dimensions: 4294967295"),
    "negative": (tensor_pairs(("x", raw((2**64 - 1,)))), "tensor 'x' dimension 0 has invalid number of elements: -1"),
    "zero": (tensor_pairs(("x", raw((0,)))), "tensor 'x' has dimension 0 of size 0, expected at least 1"),
    "zero outside": (tensor_pairs(("x", raw((0, 32)))), "tensor 'x' has dimension 1 of size 0, expected at least 1"),
    "product": (tensor_pairs(("x", raw((2**32, 2**32)))), "incorrect shape for a tensor 'x'"),
    "product of 4": (tensor_pairs(("x", raw((2**16, 2**16, 2**16, 2**16)))), "incorrect shape for a tensor 'x'"),
    "bytes": (tensor_pairs(("x", raw((2**62,), F64))), "tensor 'x' with shape (4611686018427387904, 1, 1, 1)"),
    "padding": (tensor_pairs(("x", raw((2**61 - 1,), F64))), "tensor 'x' size 18446744073709551608 overflows"),
    "sum of two": (
        tensor_pairs(("x", raw((2**61 - 8192,), F64, sum(t.data.nbytes for t in TENSORS.values())))),
        "overflow",
    ),
    "beyond the file": ([("x", raw((2**40,)))], "file is incomplete: need"),
    "beyond every file": ([("x", raw((2**61 - 8,), F64))], "file is incomplete: need 18446744073709551615 bytes"),
    "part of a block": (tensor_pairs(("x", raw((1, 33), Q4_0))), "tensor 'x' of type 2 (q4_0) has 33 elements per row"),
    "removed type": (tensor_pairs(("x", raw((32,), 4))), "tensor 'x' of type 4"),
    "type 43": (tensor_pairs(("x", raw((32,), 43))), "tensor 'x' has invalid ggml type 43"),
    "type 2^32 - 1": (tensor_pairs(("x", raw((32,), 2**32 - 1))), "tensor 'x' has invalid ggml type -1"),
    "a gap": (tensor_pairs(("x", raw((1,), I8, 2**40))), "tensor 'x' has offset 1099511627776, expected"),
    "an odd offset": (tensor_pairs(("x", raw((1,), I8, 33))), "tensor 'x' has offset 33, expected"),
    "an overlap": (tensor_pairs(("x", raw((1,), I8, 0))), "tensor 'x' has offset 0, expected"),
    "an offset of -1": (tensor_pairs(("x", raw((1,), I8, 2**64 - 1))), "tensor 'x' has offset 18446744073709551615"),
    "a long name": (tensor_pairs(("x" * 64, raw((1,), I8))), "is too long: 64 >= 64"),
}


@pytest.mark.parametrize("name", INFOS)
def test_a_tensor_that_cannot_be_is_refused(worker: LoadWorker, path: Path, name: str) -> None:
    tensors, said = INFOS[name]
    if tensors is None:
        path.write_bytes(header(n_tensors=1) + string("x") + struct.pack("<I", 2**32 - 1) + bytes(64))
    else:
        write_raw_gguf(path, KV, tensors)
    answer = worker.ask(path)
    assert_refused(answer, "file", "ModelFileError", str(path), said)
    assert answer["rss_mb"] < 50


# ---- 6: not all of the file


def parts_of(data: bytes) -> tuple[int, int]:
    """Where the tensor infos and the data of a whole file begin."""
    infos = data.index(string("token_embd.weight") + struct.pack("<I", 2))
    last = string("output.weight") + struct.pack("<I", 2)
    end = data.index(last) + len(last) + 2 * 8 + 4 + 8
    return infos, end + -end % 32


def test_a_file_cut_anywhere_is_refused_and_says_what_is_missing(worker: LoadWorker, path: Path) -> None:
    write_raw_gguf(path, KV, TENSORS)
    whole = path.read_bytes()
    infos, begin = parts_of(whole)
    ends = np.cumsum([tensor.data.nbytes for tensor in TENSORS.values()]) + begin
    assert ends[-1] == len(whole)
    edges = [24, infos, begin, *(int(end) for end in ends)]
    cuts = {*range(0, len(whole), 4096), *(edge + step for edge in edges for step in (-33, -1, 0, 1, 33))}
    for cut in sorted(cut for cut in cuts if 0 <= cut < len(whole)):
        path.write_bytes(whole[:cut])
        said = ["file is incomplete", f"need {len(whole)} bytes, have {cut}"] if cut >= begin else ["again"]
        if cut == 0:
            said = ["empty"]
        elif cut < 24:
            said = ["need 24 bytes"]
        assert_refused(worker.ask(path), "file", "ModelFileError", str(path), *said)


def test_bytes_after_the_last_tensor_do_not_matter(worker: LoadWorker, path: Path) -> None:
    write_raw_gguf(path, KV, TENSORS)
    path.write_bytes(path.read_bytes() + b"x" * 1000)
    answer = worker.ask(path, [*STAGES, "eval"])
    assert all(answer[stage] is None for stage in answer if stage != "rss_mb"), answer


# ---- 7: a file that changes


@pytest.mark.parametrize("change", ["replaced", "shrunk"])
def test_a_loaded_model_outlives_a_replaced_file_and_one_that_was_read_whole_a_cut_one(
    worker: LoadWorker, path: Path, change: str
) -> None:
    write_raw_gguf(path, KV, TENSORS)
    assert worker.ask(path, [change])[change] is None
