"""The rooms of the package: which may import which, from the bottom to the top."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lazygguf

PACKAGE = Path(lazygguf.__file__).parent
ORDER = (
    {"errors", "threads", "worker", "_names", "_numbers"},
    {"schedule"},
    {"_ffi"},
    {"files"},
    {"read"},  # numbers and positions: it knows nothing of text
    {"text"},
    {"draft"},
    {"generate"},
    {"model"},
    {"cli"},
)
LEVELS = {room: level for level, rooms in enumerate(ORDER) for room in rooms}


def rooms() -> set[str]:
    return {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}


def imports(path: Path) -> Iterator[str]:
    """The modules, by full name, that a file of the package imports, wherever the import stands."""
    package = ["lazygguf", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base = [*base, *(node.module or "").split(".")] if node.module else base
            yield from (".".join([*base, alias.name]) for alias in node.names)


def arrows() -> Iterator[tuple[str, str, str]]:
    """(file, its room, the room it imports) of every import inside the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).with_suffix("").parts[0]
        for name in imports(path):
            if name.startswith("lazygguf."):
                yield str(path.relative_to(PACKAGE)), room, name.split(".")[1]


def test_every_room_has_its_place() -> None:
    assert rooms() - {"__init__", "__main__", "tools", "profiles"} == set(LEVELS)


def test_a_room_imports_only_what_is_below_it() -> None:
    found = list(arrows())
    assert len(found) > 100
    wrong = [
        f"{file} imports {used}"
        for file, room, used in found
        if room in LEVELS and used != room and used in LEVELS and LEVELS[used] >= LEVELS[room]
    ]
    assert not wrong


def test_only_the_binding_imports_the_native_core() -> None:
    assert {room for _, room, used in arrows() if used == "_native"} == {"_ffi"}


def test_the_library_does_not_import_its_tools() -> None:
    assert not [file for file, room, used in arrows() if used == "tools" and room != "tools"]


@pytest.mark.parametrize("name", ["numpy", "llama_cpp", "lazygguf._native", "lazygguf._ffi", "rich", "prompt_toolkit"])
def test_importing_the_package_loads_nothing_heavy(name: str) -> None:
    code = f"import sys, lazygguf; sys.exit({name!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
