#!/usr/bin/env bash
# A file that llama.cpp quantizes to Q4_K_M can hold no Q4_K at all, and one that it quantizes to Q6_K or Q2_K no Q6_K
# or Q2_K: K-quants need rows of whole 256, and a tensor with other rows takes a type with blocks of 32 instead. A line
# of the log counts those; the file says Q4_K_M in general.file_type. Models that are 576, 640 or 896 wide
# (SmolLM2-135M, gemma-3-270m, Qwen2.5-0.5B) are such.
#
# Package: llama-cpp-python 0.3.36 (pip compiles it, about 5 minutes on 2 cores, and keeps the result); gguf 0.19.0.
# Seen:    2026-11, Linux x86-64.
# Matters: size, speed and error of a small model's "Q4_K_M" are those of Q5_0 and Q8_0, so they say nothing about
#          Q4_K_M of a large one. The tensors' types have to be counted.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq gguf==0.19.0 llama-cpp-python==0.3.36 numpy==2.4.6
cd "$dir"
venv/bin/python - 2> log <<'PYTHON' || { tail log; exit 1; }
import ctypes
from collections import Counter

import gguf
import llama_cpp
import numpy as np


def write_llama(path, n_embd, n_ff, n_layer=8):
    """A llama model of random weights; the quantizer reads no vocabulary."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(n_layer)
    writer.add_context_length(64)
    writer.add_embedding_length(n_embd)
    writer.add_feed_forward_length(n_ff)
    writer.add_head_count(n_embd // 32)
    writer.add_layer_norm_rms_eps(1e-5)
    shapes = {"attn_q": (n_embd, n_embd), "attn_k": (n_embd, n_embd), "attn_v": (n_embd, n_embd)}
    shapes |= {"attn_output": (n_embd, n_embd), "ffn_gate": (n_ff, n_embd), "ffn_up": (n_ff, n_embd)}
    shapes |= {"ffn_down": (n_embd, n_ff), "attn_norm": (n_embd,), "ffn_norm": (n_embd,)}
    tensors = {f"blk.{il}.{name}": shape for il in range(n_layer) for name, shape in shapes.items()}
    tensors |= {"token_embd": (64, n_embd), "output_norm": (n_embd,), "output": (64, n_embd)}
    for name, shape in tensors.items():
        writer.add_tensor(f"{name}.weight", rng.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantized(name):
    """File type and tensor types, matrices only, of the model in in.gguf quantized."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name}"), 1
    assert llama_cpp.llama_model_quantize(b"in.gguf", b"out.gguf", ctypes.byref(params)) == 0
    reader = gguf.GGUFReader("out.gguf")
    file_type = gguf.LlamaFileType(reader.fields["general.file_type"].contents()).name
    return file_type, dict(Counter(t.tensor_type.name for t in reader.tensors if len(t.shape) > 1))


EXPECTED = {
    (256, 512, "Q4_K_M"): {"Q4_K": 49, "Q6_K": 9},
    (128, 352, "Q4_K_M"): {"Q5_0": 49, "Q8_0": 9},
    (128, 352, "Q6_K"): {"Q8_0": 58},
    (128, 352, "Q2_K"): {"Q4_0": 57, "Q8_0": 1},
    (128, 512, "Q4_K_M"): {"Q5_0": 45, "Q8_0": 5, "Q6_K": 4, "Q4_K": 4},
}
for (n_embd, n_ff, name), expected in EXPECTED.items():
    write_llama("in.gguf", n_embd, n_ff)
    file_type, types = quantized(name)
    print(f"rows of {n_embd} and {n_ff}: general.file_type {file_type}, matrices {types}")
    assert file_type == f"MOSTLY_{name}" and types == expected, (types, expected)
PYTHON
