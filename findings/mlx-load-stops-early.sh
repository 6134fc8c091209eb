#!/usr/bin/env bash
# mx.load of a GGUF file stops at the first tensor whose type it does not know and gives the tensors before it, without
# an error or a warning. Types that it knows but cannot read (Q5_K) are an error. BF16 becomes float16, and what float16
# cannot hold becomes infinite or zero, as silently.
#
# Package: mlx[cpu] 0.32.4. The file is made with gguf 0.19.0 and libgguf 0.2.2.
# Seen:    2026-11, Linux x86-64, for MXFP4, TQ1_0, TQ2_0 and NVFP4: one of three tensors.
# Matters: a count of tensors is no check of a file when it comes from such a reader; a missing tensor can look like a
#          model that shares its output matrix. Compare with the header's count.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --only-binary :all: 'mlx[cpu]==0.32.4' gguf==0.19.0 libgguf==0.2.2 numpy==2.4.6
cd "$dir"
venv/bin/python - <<'PYTHON'
import gguf
import libgguf
import mlx.core as mx
import numpy as np
from gguf import GGMLQuantizationType as Type


def load(stored, kind):
    """A file of three tensors, the middle one of a type; what mlx makes of it."""
    writer = gguf.GGUFWriter("three.gguf", "llama")
    writer.add_tensor("before", np.ones(4, np.float32))
    writer.add_tensor("middle", stored, raw_dtype=kind)
    writer.add_tensor("after", np.ones(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert len(gguf.GGUFReader("three.gguf").tensors) == 3
    return mx.load("three.gguf")


rows = np.random.default_rng(0).normal(size=(2, 512)).astype(np.float32)
for kind in (Type.MXFP4, Type.TQ1_0, Type.TQ2_0, Type.NVFP4):
    loaded = load(libgguf.quantize_rows(rows, int(kind)), kind)
    print(f"{kind.name}: mlx gives {sorted(loaded)} of after, before, middle")
    assert sorted(loaded) == ["before"], "it stopped at the type that it does not know"

try:
    load(libgguf.quantize_rows(rows, int(Type.Q5_K)), Type.Q5_K)
except RuntimeError as error:
    print(f"Q5_K: {type(error).__name__}: {error}")
else:
    raise AssertionError("Q5_K was an error")

numbers = np.array([[1.0, -70000.0, 1e30, 1e-30]], np.float32)
middle = load(gguf.quants.quantize(numbers, Type.BF16), Type.BF16)["middle"]
print(f"BF16: {numbers[0].tolist()} become {np.array(middle)[0].tolist()} in {middle.dtype}")
assert middle.dtype == mx.float16 and np.array(middle)[0].tolist() == [1.0, -np.inf, np.inf, 0.0]
PYTHON
