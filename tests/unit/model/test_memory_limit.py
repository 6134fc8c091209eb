"""With too little address space a step is refused with the bytes it lacks, and nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_gguf import TinyConfig

PROGRAM = """
import resource, sys
import numpy as np
from lazygguf import LazyModel

def address_space():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmSize"))

def limited(room, act):
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + room, resource.RLIM_INFINITY))
    try:
        act()
    except MemoryError as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return ""

def steps(model):
    yield lambda: model.eval(list(range(5, 300)))
    yield lambda: model.eval([7])
    yield lambda: model.eval([8])
    yield lambda: model.eval(list(range(5, 150)))

path, n_threads = sys.argv[1], int(sys.argv[2])
options = {"n_threads": n_threads, "n_ctx": 512, "keep": "1:0.5"}
with LazyModel(path, **options) as free, LazyModel(path, **options) as model:
    for expected, step in zip(steps(free), steps(model)):
        expected()
        for room in (0, 1 << 18, 1 << 19, 1 << 20, 1 << 21, 1 << 22, 1 << 23, 1 << 24, 1 << 25, 1 << 26):
            n_before = model.n_tokens
            said = limited(room, step)
            if not said:
                break
            assert "bytes" in said and model.n_tokens == n_before, said
            print(said)
        else:
            raise AssertionError("no room was enough")
        assert np.array_equal(model.logits, free.logits)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the address space is read from /proc")
@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_step_without_room_is_refused_and_works_with_it(
    tiny_model: Callable[[TinyConfig], tuple[Path, Any]], n_threads: int
) -> None:
    path = tiny_model(TinyConfig())[0]
    command = [sys.executable, "-c", PROGRAM, str(path), str(n_threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bytes for a scheduler" in done.stdout
