"""What a step decides, and what of a file is refused in which words, as C++ tests of pure functions.

``tests/native`` is compiled with them, without ggml, and needs no file.

Each case of ``tests/native`` is a test here, by its sentence.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Optional

import pytest

ROOT = Path(__file__).resolve().parents[3]
CASES = sorted((ROOT / "tests" / "native").glob("*.cpp"))
TESTED = [ROOT / "native" / path for path in ("run/progress.cpp", "file/vocab_rules.cpp", "model/file_rules.cpp")]
SOURCES = [*CASES, *sorted((ROOT / "native" / "prune").glob("*.cpp")), *TESTED]
# An index outside of a vector ends the program, where the C++ library is GCC's.
FLAGS = ["-std=c++17", "-Wall", "-Wextra", "-D_GLIBCXX_ASSERTIONS", f"-I{ROOT / 'native'}"]
_CASE = re.compile(r'^CASE\("([^"]*)"\)', re.MULTILINE)


def compiler() -> Optional[str]:
    named = os.environ.get("CXX")
    return shutil.which(named) if named else shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The compiled cases, which run one of them by its name."""
    cxx = compiler()
    if cxx is None:
        pytest.skip("there is no C++ compiler: set CXX, or install c++, g++ or clang++")
    folder = tmp_path_factory.mktemp("cases")
    objects = [str(folder / f"{number}.o") for number in range(len(SOURCES))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        commands = [[cxx, *FLAGS, "-c", str(source), "-o", out] for source, out in zip(SOURCES, objects)]
        list(pool.map(run, commands))
    program = str(folder / "cases")
    run([cxx, *objects, "-o", program])
    return program


def names() -> list[str]:
    return [name for source in CASES for name in _CASE.findall(source.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("name", names())
def test_policy(program: str, name: str) -> None:
    done = subprocess.run([program, name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


def test_every_case_is_a_test_here_under_a_name_of_its_own(program: str) -> None:
    listed = run([program, "--list"]).splitlines()
    assert len(set(listed)) == len(listed)
    assert sorted(listed) == sorted(names())


def test_a_name_that_no_case_has_fails(program: str) -> None:
    done = subprocess.run([program, "no such case"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "no case is named 'no such case'" in done.stdout
