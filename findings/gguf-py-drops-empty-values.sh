#!/usr/bin/env bash
# GGUFWriter of gguf-py writes no key at all for an empty string or an empty array, and says nothing. An empty string
# inside an array is written. The format has both: ggml's own reader gives the length 0 for a key that is written so.
#
# Package: gguf 0.19.0; ggml as reader from libggml-python 0.20.2.post1.
# Seen:    2026-11, Linux x86-64.
# Matters: an empty value cannot be told from a missing one in a file that gguf-py wrote, and a key that a reader asks
#          for, such as the merges of a byte-level vocabulary that has none, is not there.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --only-binary :all: gguf==0.19.0 libggml-python==0.20.2.post1 numpy==2.4.6
cd "$dir"
venv/bin/python - <<'PYTHON'
import ctypes
import struct
from pathlib import Path

import gguf
import libggml

ggml = ctypes.CDLL(str(Path(libggml.__file__).parent / "lib64" / "libggml-base.so"))


class InitParams(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]


ggml.gguf_init_from_file.restype = ctypes.c_void_p
ggml.gguf_init_from_file.argtypes = [ctypes.c_char_p, InitParams]
ggml.gguf_find_key.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
ggml.gguf_find_key.restype = ctypes.c_int64
ggml.gguf_get_arr_n.argtypes = [ctypes.c_void_p, ctypes.c_int64]
ggml.gguf_get_arr_n.restype = ctypes.c_size_t

writer = gguf.GGUFWriter("written.gguf", "llama")
writer.add_string("test.text", "")
writer.add_array("test.list", [])
writer.add_array("test.texts", ["a", ""])
writer.add_uint32("test.zero", 0)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

KEYS = ["test.text", "test.list", "test.texts", "test.zero"]
reader = gguf.GGUFReader("written.gguf")
context = ggml.gguf_init_from_file(b"written.gguf", InitParams(True, None))
in_gguf_py = [key for key in KEYS if key in reader.fields]
in_ggml = [key for key in KEYS if ggml.gguf_find_key(context, key.encode()) >= 0]
print(f"added: {', '.join(KEYS)}; in the file: {', '.join(in_ggml)}")
assert in_gguf_py == in_ggml == ["test.texts", "test.zero"]
assert reader.fields["test.texts"].contents() == ["a", ""]

# The same key by hand, an array of strings of length 0, is a valid file for ggml.
key = b"test.list"
by_hand = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", len(key)) + key + struct.pack("<IIQ", 9, 8, 0)
Path("by_hand.gguf").write_bytes(by_hand + bytes(-len(by_hand) % 32))
context = ggml.gguf_init_from_file(b"by_hand.gguf", InitParams(True, None))
found = ggml.gguf_find_key(context, key)
assert found == 0 and ggml.gguf_get_arr_n(context, found) == 0
print("written by hand, ggml finds the empty array, of length 0")
PYTHON
