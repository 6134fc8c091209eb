#!/usr/bin/env bash
# GGUFWriter of gguf-py writes files that its own reader accepts and ggml refuses whole: an array of arrays (which
# the own reader also flattens), a tensor of five dimensions, a tensor name of 64 bytes (63 are accepted).
#
# Package: gguf 0.19.0; ggml as reader from libggml-python 0.20.2.post1.
# Seen:    2026-11, Linux x86-64.
# Matters: a converter that checks its output with gguf-py's reader has not checked that llama.cpp can open it.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --only-binary :all: gguf==0.19.0 libggml-python==0.20.2.post1 numpy==2.4.6
cd "$dir"
venv/bin/python - <<'PYTHON'
import ctypes
from pathlib import Path

import gguf
import libggml
import numpy as np

ggml = ctypes.CDLL(str(Path(libggml.__file__).parent / "lib64" / "libggml-base.so"))


class InitParams(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]


ggml.gguf_init_from_file.restype = ctypes.c_void_p
ggml.gguf_init_from_file.argtypes = [ctypes.c_char_p, InitParams]


def tensor(name, *shape):
    return lambda writer: writer.add_tensor(name, np.ones(shape, np.float32))


def opens(add):
    """Whether ggml opens a file with that; gguf-py's reader of it."""
    writer = gguf.GGUFWriter("file.gguf", "llama")
    add(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return bool(ggml.gguf_init_from_file(b"file.gguf", InitParams(True, None))), gguf.GGUFReader("file.gguf")


CASES = {
    "array": (lambda writer: writer.add_array("test", [1, 2, 3, 4]), True),
    "array of arrays": (lambda writer: writer.add_array("test", [[1, 2], [3, 4]]), False),
    "4 dimensions": (tensor("t", 1, 1, 1, 32), True),
    "5 dimensions": (tensor("t", 1, 1, 1, 1, 32), False),
    "name of 63 bytes": (tensor("t" * 63, 32), True),
    "name of 64 bytes": (tensor("t" * 64, 32), False),
}
for what, (add, expected) in CASES.items():
    opened, reader = opens(add)
    value = reader.fields["test"].contents() if "test" in reader.fields else reader.tensors[0].shape.tolist()
    print(f"{what}: gguf-py reads {value}, ggml {'opens' if opened else 'refuses'} the file")
    assert opened == expected, what
    assert value == [1, 2, 3, 4] if "array" in what else len(reader.tensors) == 1
PYTHON
