"""Memory and speed of conversion: ``python measure_convert.py [--gb N] [--work FOLDER]``.

Memory: a checkpoint of Llama 2 7B's shape (13.5 GB, sparse zeros, so reading costs no disk). Speed: a
checkpoint of random weights of N GB, beside copying its file with the same fsync, alternating, best of three.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from convert.checkpoint_files import write_raw_safetensors
from convert.tiny_checkpoints import Spec, hf_config, hf_weights, write_json, write_spm_tokenizer

LLAMA2_7B = Spec(n_vocab=32000, n_embd=4096, n_head=32, n_head_kv=32, n_ff=11008, n_layer=32)
BLOCK = 16 * 1024 * 1024
PEAK = (
    "import resource, sys; from convert.conftest import parse_and_run;"
    "parse_and_run('convert', *sys.argv[1:]);"
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
)


def write_checkpoint(folder: Path, spec: Spec, dtype: str, *, random: bool) -> Path:
    """A safetensors folder of 16-bit weights, zeros without disk blocks or random."""
    folder.mkdir(parents=True, exist_ok=True)
    n, kv = spec.n_embd, spec.n_head_kv * spec.n_embd_head
    sizes = {
        "embed": [spec.n_vocab, n],
        "lm_head": [spec.n_vocab, n],
        "q_proj": [n, n],
        "k_proj": [kv, n],
        "v_proj": [kv, n],
        "o_proj": [n, n],
        "gate": [spec.n_ff, n],
        "up": [spec.n_ff, n],
        "down": [n, spec.n_ff],
        "norm": [n],
    }
    header, offset = {}, 0
    for name in hf_weights(Spec(n_layer=spec.n_layer)):
        shape = next(shape for key, shape in sizes.items() if key in name)
        end = offset + 2 * int(np.prod(shape))
        header[name], offset = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}, end
    write_json(folder / "config.json", hf_config(spec))
    write_spm_tokenizer(folder, 400)
    path = folder / "model.safetensors"
    block = (np.random.default_rng(0).standard_normal(BLOCK // 2, np.float32) * 0.02).astype(np.float16)
    if dtype == "BF16":
        block = (block.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    pieces = [block.tobytes()] * (offset // BLOCK) + [block.tobytes()[: offset % BLOCK]] if random else []
    write_raw_safetensors(path, header, pieces)
    if not random:
        os.truncate(path, path.stat().st_size + offset)
    return path


def peak_memory(folder: Path, out: Path, outtype: str) -> tuple[float, float]:
    """Peak RSS in MB of a process that converts, and its seconds."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    command = [sys.executable, "-c", PEAK, str(folder), "--outfile", str(out), "--outtype", outtype, "--force"]
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, cwd="/", check=True, capture_output=True, text=True)
    return int(done.stdout.splitlines()[-1]) / 1024, time.perf_counter() - start


def copy_file(source: Path, target: Path) -> float:
    """Seconds for a plain copy with fsync."""
    start = time.perf_counter()
    with open(source, "rb") as reader, open(target, "wb") as writer:
        while block := reader.read(BLOCK):
            writer.write(block)
        writer.flush()
        os.fsync(writer.fileno())
    return time.perf_counter() - start


def measure_speed(work: Path, gb: float) -> None:
    n_layer = max(1, round((gb * 1e9 - 2 * 2 * 32000 * 4096) / (2 * 202.4e6)))
    spec = Spec(n_vocab=32000, n_embd=4096, n_head=32, n_head_kv=32, n_ff=11008, n_layer=n_layer)
    for dtype in ("F16", "BF16"):
        path = write_checkpoint(work / "speed", spec, dtype, random=True)
        copies, conversions = [], []
        for _ in range(3):
            copies.append(copy_file(path, work / "copy"))
            (work / "copy").unlink()
            conversions.append(peak_memory(path.parent, work / "out.gguf", "f16")[1])
            (work / "out.gguf").unlink()
        ratio = min(conversions) / min(copies)
        print(
            f"{dtype} -> f16, {path.stat().st_size / 1e9:.1f} GB: copy {min(copies):.1f} s, "
            f"convert {min(conversions):.1f} s, ratio {ratio:.2f}",
            flush=True,
        )


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gb", type=float, default=3.0)
    parser.add_argument("--work", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.work) as name:
        work = Path(name)
        for dtype, outtype in (("F16", "f16"), ("BF16", "f16"), ("BF16", "q8_0")):
            path = write_checkpoint(work / "memory", LLAMA2_7B, dtype, random=False)
            peak, seconds = peak_memory(path.parent, work / "out.gguf", outtype)
            size = path.stat().st_size / 1e9
            print(f"{dtype} -> {outtype}, {size:.1f} GB: peak RSS {peak:.0f} MB, {seconds:.0f} s", flush=True)
            (work / "out.gguf").unlink()
        measure_speed(work, args.gb)


if __name__ == "__main__":
    main()
