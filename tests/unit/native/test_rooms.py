"""The rooms of ``native/``: a file includes its own room and those below it, and is compiled."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
NATIVE = ROOT / "native"
# From the top. A room includes itself and what stands below it.
ROOMS = ("api", "run", "arch", "graph", "model", "prune", "kernels", "simd", "devices", "file", "base")
# Numbers in, positions out: the selection knows no kernels, devices or files either.
ONLY = {"prune": {"prune", "base"}}
INTERFACE = "api/lazygguf.h"  # known to its own room only
_INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"')


def wrong_arrows(room: str, path: str, text: str) -> list[str]:
    """The includes of a file's text that go the wrong way, as ``path:line: room -> what it includes``."""
    allowed = ONLY.get(room, set(ROOMS[ROOMS.index(room) :]))
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        match = _INCLUDE.match(line)
        if match is None:
            continue
        target = match[1]
        folder = target.split("/")[0] if "/" in target else "(no room)"
        if folder not in allowed or (target == INTERFACE and room != "api"):
            found.append(f"{path}:{number}: {room} -> {target}")
    return found


def sources() -> list[Path]:
    return sorted(path for path in NATIVE.rglob("*") if path.suffix in (".c", ".cc", ".cpp", ".h", ".hpp", ".inc"))


def test_every_file_stands_in_a_room() -> None:
    assert [str(path) for path in sources() if path.parent.parent != NATIVE or path.parent.name not in ROOMS] == []
    assert len(sources()) > 40


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_includes_itself_and_the_rooms_below(room: str) -> None:
    wrong: list[str] = []
    for path in sources():
        if path.parent.name == room:
            wrong += wrong_arrows(room, str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))
    assert wrong == []


def test_every_source_file_is_compiled() -> None:
    listed = set(re.findall(r"native/\w+/\w+\.cpp", (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")))
    assert {str(path.relative_to(ROOT)) for path in sources() if path.suffix != ".h"} == listed


@pytest.mark.parametrize(
    ("room", "include", "is_right"),
    [
        ("run", '#include "graph/segment_graph.h"', True),
        ("run", '#include "run/step.h"', True),
        ("graph", '#include "run/step.h"', False),
        ("prune", '#include "base/error.h"', True),
        ("prune", '#include "model/hparams.h"', False),
        ("prune", '#include "file/vocab.h"', False),
        ("model", '#include "arch/arch.h"', False),
        ("arch", '#include "graph/layer_builder.h"', True),
        ("kernels", '#include "devices/device_proc.h"', True),
        ("devices", '#include "kernels/matmul.h"', False),
        ("base", '#include "file/vocab.h"', False),
        ("run", '#include "api/lazygguf.h"', False),
        ("api", '#include "api/lazygguf.h"', True),
        ("run", '#  include "step.h"', False),  # without its room
        ("run", '#include "../api/boundary.h"', False),
        ("run", "#include <ggml.h>", True),
        ("base", '// #include "api/lazygguf.h"', True),
    ],
)
def test_an_include_that_goes_the_wrong_way_is_named_with_its_line(room: str, include: str, is_right: bool) -> None:
    text = f"#pragma once\n\n{include}\nint x;\n"
    found = wrong_arrows(room, f"native/{room}/example.h", text)
    if is_right:
        assert found == []
    else:
        target = include.split('"')[1]
        assert found == [f"native/{room}/example.h:3: {room} -> {target}"]
