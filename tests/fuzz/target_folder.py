"""Checkpoint folders with a damaged file: convert refuses them in one line, or writes a file that opens."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import shutil
from pathlib import Path
from typing import Any, Callable

from convert.tiny_checkpoints import LLAMA3_ROPE, Spec, write_hf, write_meta
from fuzz.lies import change_bytes, change_json
from lazygguf.tools.convert import command

from lazygguf._ffi import NativeFile
from lazygguf.errors import LazyError

WEIGHTS = (".safetensors", ".bin", ".pth")


def open_target(folder: Path) -> Callable[[random.Random], None]:
    write_hf(folder / "llama", Spec(n_layer=1, rope_scaling=LLAMA3_ROPE))
    write_hf(folder / "qwen2", Spec(arch="qwen2", n_layer=1), n_shards=2, tokenizer="qwen2")
    write_hf(folder / "pickle", Spec(n_layer=1, tied=True), form="bin")
    write_meta(folder / "meta", Spec(n_layer=1))
    sources = [folder / name for name in ("llama", "qwen2", "pickle", "meta")]
    work = folder / "work"
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)

    def run(rng: random.Random) -> None:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(rng.choice(sources), work)
        for _ in range(rng.randint(1, 2)):
            damage(rng, work)
        out = work / "out.gguf"
        arguments = [str(work), "--outfile", str(out), *rng.choice([[], ["--vocab-only"], ["--dry-run"]])]
        before = sorted(work.iterdir())
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                command.run(parser.parse_args(arguments))
        except (LazyError, ValueError, OSError, MemoryError) as error:
            assert str(error) and "\n" not in str(error), repr(error)
            assert not isinstance(error, UnicodeError), repr(error)
            assert sorted(work.iterdir()) == before, "something is left over"
            return
        if out.exists():
            with NativeFile(out) as file:
                if "--vocab-only" not in arguments:
                    file.check()

    return run


def damage(rng: random.Random, folder: Path) -> None:
    """Changes one file of the folder, or takes it away."""
    path = rng.choice([path for path in sorted(folder.iterdir()) if path.is_file()])
    if rng.random() < 0.05:
        path.unlink()
        return
    if path.suffix == ".json" and rng.random() < 0.8:
        with contextlib.suppress(ValueError):
            value: Any = change_json(rng, json.loads(path.read_bytes()))
            path.write_bytes(json.dumps(value).encode("utf-8", "surrogatepass"))
            return
    if path.suffix in WEIGHTS and rng.random() < 0.5:  # the header, which is its first part
        data = path.read_bytes()
        path.write_bytes(change_bytes(rng, data[:2000]) + data[2000:])
        return
    path.write_bytes(change_bytes(rng, path.read_bytes()))
