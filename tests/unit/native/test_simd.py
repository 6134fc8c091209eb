"""The kernels of ``native/simd``, compiled here for each instruction set: by themselves, without ggml or a model.

Each case of ``tests/native/simd`` is a test here for every set that this CPU has, and for those of AArch64 where there
is a cross compiler and an emulator. The sets and their options are those of CMakeLists.txt.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Optional

import pytest

from lazygguf._ffi.library import ffi, lib

ROOT = Path(__file__).resolve().parents[3]
CMAKE = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
CASES = sorted((ROOT / "tests" / "native" / "simd").glob("*.cpp"))
_CASE = re.compile(r'^CASE\("([^"]*)"\)', re.MULTILINE)
NAMES = [name for source in CASES for name in _CASE.findall(source.read_text(encoding="utf-8"))]
ARM = ("dotprod", "i8mm")
IS_X86 = platform.machine() in ("x86_64", "AMD64")
IS_ARM = platform.machine() in ("aarch64", "arm64")


def set_in_cmake(name: str) -> list[str]:
    """The words that ``set(NAME ...)`` gives, with other lists put in their place."""
    match = re.search(rf"^ *set\({name}([^)]*)\)", CMAKE, re.MULTILINE)
    assert match is not None, name
    words: list[str] = []
    for word in match[1].replace('""', "").split():
        other = re.fullmatch(r"\$\{(\w+)\}", word)
        words += set_in_cmake(other[1]) if other else [word]
    return words


SOURCES = [ROOT / name for name in set_in_cmake("SIMD_SOURCES")]


class Target(NamedTuple):
    isa: str
    is_cross: bool  # compiled for AArch64 on another CPU

    @property
    def flags(self) -> list[str]:
        warnings = ["-Wall", "-Wextra", "-Wno-psabi", "-Wno-uninitialized", "-Wno-maybe-uninitialized"]
        # what runs in an emulator need not be quick, and is compiled in half the time
        level = "-O1" if self.is_cross else "-O3"
        return ["-std=c++17", level, "-ffp-contract=off", *warnings, *set_in_cmake(f"SIMD_OPTIONS_{self.isa}")]


def found(*names: str) -> Optional[str]:
    return next((path for name in names if (path := shutil.which(name))), None)


def targets() -> list[Target]:
    own = set(re.findall(r"^ *set\(SIMD_OPTIONS_(\w+)", CMAKE, re.MULTILINE)) - (set() if IS_ARM else set(ARM))
    if IS_ARM:
        own = {"plain", *ARM}
    return [Target(isa, False) for isa in sorted(own)] + [Target(isa, True) for isa in ("plain", *ARM) if IS_X86]


def name_of(target: Target) -> str:
    return f"{target.isa} of AArch64" if target.is_cross else target.isa


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


class Compiled(NamedTuple):
    target: Target
    cxx: str
    folder: Path
    objects: list[Path]  # of SOURCES


@pytest.fixture(scope="module", params=targets(), ids=name_of)
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    target: Target = request.param
    named = os.environ.get("CXX")
    cxx = (
        found("aarch64-linux-gnu-g++") if target.is_cross else found(named) if named else found("c++", "g++", "clang++")
    )
    if cxx is None:
        pytest.skip(
            "there is no cross compiler for AArch64" if target.is_cross else "there is no C++ compiler: set CXX"
        )
    folder = tmp_path_factory.mktemp(target.isa)
    objects = [folder / f"{source.stem}.o" for source in SOURCES]
    flags = [*target.flags, *defines(target)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(run, [[cxx, *flags, "-c", str(a), "-o", str(b)] for a, b in zip(SOURCES, objects)]))
    return Compiled(target, cxx, folder, objects)


def defines(target: Target) -> list[str]:
    spec = find_spec("llama_cpp")
    assert spec is not None and spec.origin is not None
    headers = Path(spec.origin).parent.parent / "include"  # ggml's, which came with it
    return [f"-DLAZY_ISA={target.isa}", f"-I{ROOT / 'native'}", "-isystem", str(headers)]


def test_nothing_of_a_kernel_is_shared_with_code_for_another_instruction_set(compiled: Compiled) -> None:
    nm = found("nm", "llvm-nm")
    if nm is None:
        pytest.skip("there is no nm")
    isa = compiled.target.isa
    # a name in lazygguf::ISA, or what the compiler makes for one: a guard, a table, access to a thread's variable
    own = re.compile(rf"_?_Z(GV|T[A-Z])?N[KVrRO]*8lazygguf{len(isa)}{isa}")
    weak = [
        name
        for path in compiled.objects
        for line in run([nm, str(path)]).splitlines()
        if len(line.split()) == 3 and (name := line.split()[2]) and line.split()[1] in "WVu"
    ]
    assert any("product_block" in name for name in weak)  # a template of ours
    assert [name for name in weak if not own.match(name)] == []


@pytest.fixture(scope="module")
def program(compiled: Compiled) -> list[str]:
    """What runs one case by its name."""
    target = compiled.target
    emulator = found("qemu-aarch64") if target.is_cross else None
    if target.is_cross and emulator is None:
        pytest.skip("there is no emulator for AArch64: qemu-aarch64")
    if not target.is_cross and target.isa not in ffi.string(lib.lazy_isa_names()).decode().replace(",", " ").split():
        pytest.skip(f"this CPU has no {target.isa}")
    out = compiled.folder / "cases"
    flags = [*target.flags, *defines(target), "-pthread", *(["-static"] if target.is_cross else [])]
    others = (ROOT / "tests" / "native" / "check.cpp", ROOT / "native" / "kernels" / "packing.cpp")
    run([compiled.cxx, *flags, *map(str, (*CASES, *others, *compiled.objects)), "-o", str(out)])
    return [emulator, "-cpu", "max", str(out)] if emulator else [str(out)]


@pytest.mark.parametrize("name", NAMES)
def test_kernels(program: list[str], name: str) -> None:
    run([*program, name])


def test_every_case_is_a_test_here_under_a_name_of_its_own(program: list[str]) -> None:
    assert sorted(run([*program, "--list"]).splitlines()) == sorted(NAMES)
    assert len(set(NAMES)) == len(NAMES)
