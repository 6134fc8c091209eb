"""Which instruction set the kernels use: the best one of this CPU, a lesser one on request, and no other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest
from tiny_gguf import TinyConfig

from lazygguf._ffi import isa_names


def run(code: str, isa: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a process of its own: the choice is made once in each."""
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}\n{code}", *args]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LAZYGGUF_ISA": isa})


PRINT = "from lazygguf._ffi import isa; print(isa())"
MAIN = "from lazygguf.cli.main import main; sys.exit(main(sys.argv[1:]))"


def test_the_best_one_is_used_unless_another_is_named() -> None:
    names = isa_names()
    assert names[-1] == "plain" and len(set(names)) == len(names)
    assert run(PRINT, "").stdout.strip() == names[0]
    for name in names:
        assert run(PRINT, name).stdout.strip() == name


@pytest.mark.parametrize("command", [["inspect", "-v", "MODEL"], ["bench", "-m", "MODEL", "-p", "30"]])
def test_an_unknown_one_is_one_error_that_names_it_and_those_there_are(
    command: list[str], tiny_model: Callable[[TinyConfig], tuple[Path, Any]]
) -> None:
    path = str(tiny_model(TinyConfig())[0])
    done = run(MAIN, "sse9", *(path if word == "MODEL" else word for word in command))
    expected = f"LAZYGGUF_ISA is 'sse9', expected one of those that this CPU has: {', '.join(isa_names())}"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"lazygguf: error: {expected}\n")


def test_a_model_does_not_open_with_an_unknown_one(tiny_model: Callable[[TinyConfig], tuple[Path, Any]]) -> None:
    path = str(tiny_model(TinyConfig(weight_type="Q8_0"))[0])
    code = "from lazygguf import LazyModel; LazyModel(sys.argv[1], n_ctx=64)"
    done = run(code, "sse9", path)
    assert "ValueError: LAZYGGUF_ISA is 'sse9'" in done.stderr
