"""Our conversion beside llama.cpp's own converter, on the same folders.

Usage: python compare_convert_hf.py PATH/convert_hf_to_gguf.py [FOLDER ...] [--python PYTHON]

PYTHON is an interpreter that has torch and transformers. Without folders, tiny checkpoints of every kind are
compared. Tensor names, shapes, types and bytes must be equal, and every tokenizer field and hyper-parameter
that the other file has must be in ours with the same value; what only ours has is printed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from convert.gguf_to_hf import fields
from convert.tiny_checkpoints import LLAMA3_ROPE, Spec, write_hf
from gguf import GGUFReader

# (name, spec, tokenizer, dtype of the checkpoint, outtype)
CASES = [
    ("llama-spm-f32", Spec(), "spm", "F32", "f32"),
    ("llama-spm-bf16-auto", Spec(seed=1), "spm", "BF16", "auto"),
    ("llama-spm-bf16-f16", Spec(seed=2, tied=True), "spm", "BF16", "f16"),
    ("llama-spm-f32-q8_0", Spec(seed=3), "spm", "F32", "q8_0"),
    ("llama-spm-f32-bf16", Spec(seed=4), "spm", "F32", "bf16"),
    ("llama-spm-llama3-rope", Spec(seed=5, rope_scaling=LLAMA3_ROPE, rope_theta=5e5), "spm", "F16", "f16"),
    (
        "llama-spm-linear",
        Spec(seed=6, rope_scaling={"rope_type": "linear", "factor": 4.0}),
        "spm",
        "F32",
        "f32",
    ),
    (
        "llama-spm-yarn",
        Spec(seed=7, rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}),
        "spm",
        "F32",
        "f32",
    ),
]


def compare(script: Path, python: str, folder: Path, outtype: str, work: Path) -> tuple[list[str], list[str]]:
    """Converts a folder both ways.

    Returns:
        The differences, and the keys that only our file has.
    """
    from convert.conftest import parse_and_run

    ours, theirs = work / "ours.gguf", work / "theirs.gguf"
    parse_and_run("convert", folder, "--outfile", ours, "--outtype", outtype)
    command = [python, str(script), str(folder), "--outfile", str(theirs), "--outtype", outtype]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return differences(GGUFReader(ours), GGUFReader(theirs))


def differences(ours: GGUFReader, theirs: GGUFReader) -> tuple[list[str], list[str]]:
    found = []
    a, b = ({t.name: t for t in reader.tensors} for reader in (ours, theirs))
    found += [f"tensor {name} is in one file only" for name in sorted(a.keys() ^ b.keys())]
    for name in sorted(a.keys() & b.keys()):
        x, y = a[name], b[name]
        if x.tensor_type != y.tensor_type or list(x.shape) != list(y.shape):
            found.append(f"tensor {name}: {x.tensor_type.name} {list(x.shape)}, {y.tensor_type.name} {list(y.shape)}")
        elif not np.array_equal(np.asarray(x.data).view(np.uint8), np.asarray(y.data).view(np.uint8)):
            found.append(f"tensor {name}: the bytes differ")
    p, q = fields(ours), fields(theirs)
    for key, value in q.items():
        if key.startswith("general.") and key not in ("general.architecture", "general.file_type"):
            continue
        if key not in p or p[key] != value:
            found.append(f"{key}: {_shown(p.get(key))}, expected {_shown(value)}")
    return found, sorted(p.keys() - q.keys())


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 100 else text[:100] + "..."


def main() -> int:
    """Compares and prints one line for each folder; the exit code is 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("script", type=Path)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--outtype", default="f16")
    args = parser.parse_intermixed_args()
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        jobs = [(folder, args.outtype) for folder in args.folders]
        if not jobs:
            jobs = [(write_hf(work / n, s, dtype=d, tokenizer=t), o) for n, s, t, d, o in CASES]
        for folder, outtype in jobs:
            found, extra = compare(args.script, args.python, folder, outtype, work)
            failed += bool(found)
            only = ", ".join(extra) or "nothing"
            print(f"{folder.name}: {'; '.join(found) or 'equal'} (only in ours: {only})")
            for path in work.glob("*.gguf"):
                path.unlink()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
