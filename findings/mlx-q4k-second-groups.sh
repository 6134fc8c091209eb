#!/usr/bin/env bash
# mlx reads Q4_K weights with wrong values, without an error: of each pair of 32-weight groups the second is decoded
# with the scale and the minimum of the first. Q6_K of the same weights is right.
#
# Package: mlx[cpu] 0.32.4. The file is made with gguf 0.19.0 and libgguf 0.2.2 (ggml's own quantizer).
# Seen:    2026-11, Linux x86-64. Largest error in first groups below 0.002, in second groups above 1 (weights of
#          standard deviation 1).
# Matters: Q4_K is the bulk of every Q4_K_M file. Weights that mx.load gives for one are not the model's, so they are
#          no reference for a reader or a converter.
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

GROUP = 32
weights = np.random.default_rng(0).normal(size=(8, 512)).astype(np.float32)


def errors(kind):
    """Bytes of the weights in a type, what they mean, and what mlx makes of them."""
    stored = libgguf.quantize_rows(weights, int(kind))
    writer = gguf.GGUFWriter("weights.gguf", "llama")
    writer.add_tensor("w", stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    meant = gguf.quants.dequantize(stored, kind).reshape(-1, 2, GROUP)
    assert np.array_equal(meant.ravel(), libgguf.dequantize_rows(stored, int(kind)).ravel()), "gguf and ggml disagree"
    read = np.array(mx.load("weights.gguf")["w"].astype(mx.float32)).reshape(-1, 2, GROUP)
    largest = np.abs(read - meant).max(axis=(0, 2))
    print(f"{kind.name}: largest error in first groups {largest[0]:.4f}, in second groups {largest[1]:.4f}")
    return stored, meant, read, largest


*_, largest = errors(Type.Q6_K)
assert largest.max() < 0.002, "Q6_K was right"
stored, meant, read, largest = errors(Type.Q4_K)
assert largest[0] < 0.002 and largest[1] > 1, "every second group was wrong"

# The second groups' own 4-bit numbers, with the step and the offset of the group before: that is what mlx gives.
packed = stored.reshape(-1, 144)[:, 16:].reshape(-1, GROUP)
first, second = packed & 15, packed >> 4
for i in range(len(packed)):
    step, offset = np.polyfit(first[i], meant[i, 0], 1)
    assert np.abs(second[i] * step + offset - read[i, 1]).max() < 0.005, f"pair {i} is decoded in another way"
print(f"all {len(packed)} second groups have the step and the offset of the first")
PYTHON
