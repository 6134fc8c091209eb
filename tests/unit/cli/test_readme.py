"""The README and docs/: what they promise holds, what they show runs, and their links lead somewhere."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import lazygguf
from lazygguf.cli.main import _parse

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = ROOT / "tools" / "data" / "jargon.txt"
LONG = 12_000  # characters; about 2,800 tokens of SmolLM2

# what the README's demonstration asks, and the words that answer it (docs/lighthouse.txt)
ANSWER = "20617"


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)


# ---- form ---------------------------------------------------------------------------------------------


def test_the_readme_is_read_in_a_minute() -> None:
    assert 120 <= len(README.splitlines()) <= 150


def test_the_two_commands_are_the_first_code() -> None:
    lines = [line.partition("#")[0].strip() for line in README.split("\n\n")[1].splitlines()]
    assert lines == [
        "pip install '.[demo]' && lazygguf chat -f some.txt -p \"question\"",
        "pip install '.[test]' && pytest",
    ]


def headings(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in headings(target), f"{page.name}: {link}"


def test_every_page_is_in_the_readme() -> None:
    missing = [page.name for page in PAGES if page.parent == ROOT / "docs" and f"(docs/{page.name}" not in README]
    assert not missing


# ---- Python -------------------------------------------------------------------------------------------


class Block(NamedTuple):
    """A Python block and the page it stands on."""

    page: str
    code: str


def python_blocks() -> list[Block]:
    return [
        Block(page.name, code)
        for page in PAGES
        for code in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    ]


NAMES = {"LazyModel": lazygguf.LazyModel, "KeepSchedule": lazygguf.KeepSchedule}
VARIABLES = {"model": lazygguf.LazyModel, "stats": lazygguf.Stats, "KeepSchedule": lazygguf.KeepSchedule}


def has_name(owner: type, name: str) -> bool:
    return hasattr(owner, name) or name in getattr(owner, "__dataclass_fields__", {})


@pytest.mark.parametrize("block", python_blocks(), ids=lambda block: block.page)
def test_python_blocks_use_names_that_exist(block: Block) -> None:
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.ImportFrom):
            assert node.module == "lazygguf"
            assert all(hasattr(lazygguf, alias.name) for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in VARIABLES:
            assert has_name(VARIABLES[node.value.id], node.attr), f"{block.page}: {node.value.id}.{node.attr}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in NAMES:
            known = inspect.signature(NAMES[node.func.id]).parameters
            assert all(keyword.arg in known for keyword in node.keywords)


# ---- commands -----------------------------------------------------------------------------------------


def commands(page: Path) -> Iterator[str]:
    """The lines of indented blocks that run lazygguf, without what a pipe feeds it; continued lines are joined."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"^ {4}(.*\blazygguf .*)$", text, re.MULTILINE):
        for part in re.split(r" \| | && ", line.strip().removeprefix("$ ")):
            if part.startswith("lazygguf "):
                yield part


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_command_lines_are_accepted(page: Path) -> None:
    for line in commands(page):
        words = shlex.split(line, comments=True)[1:]
        try:
            _parse(words)
        except SystemExit:
            pytest.fail(f"{page.name}: {line}")


def test_the_pages_hold_commands_to_check() -> None:
    assert len(list(commands(ROOT / "README.md"))) >= 7


# ---- what is shown runs -------------------------------------------------------------------------------


@pytest.fixture()
def long_text(tmp_path: Path) -> Path:
    path = tmp_path / "some.txt"
    path.write_text(TEXT.read_text(encoding="utf-8")[:LONG], encoding="utf-8")
    return path


@pytest.mark.model
def test_the_first_line_reads_a_long_text_lazily(long_text: Path, smollm2_path: Path) -> None:
    question = "What is this text about?"
    done = run(sys.executable, "-m", "lazygguf", "chat", "-f", long_text.name, "-p", question, cwd=long_text.parent)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) >= 5
    footer = re.search(r"([\d,]+) tokens read \| (\d+)% computed \| first token [\d.]+ s", done.stderr)
    assert footer is not None, done.stderr
    assert int(footer[1].replace(",", "")) >= 2000
    assert int(footer[2]) < 80  # the default schedule reads lazily


@pytest.mark.model
def test_the_demonstration_is_answered_rightly(tmp_path: Path, smollm2_path: Path) -> None:
    shown = re.search(r"^ {4}\$ (lazygguf chat .*)$\n {4}(.*)$", README, re.MULTILINE)
    assert shown is not None
    assert ANSWER in shown[2]  # the answer that the README prints
    words = shlex.split(shown[1])[1:]
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    done = run(sys.executable, "-m", "lazygguf", *words, "--temp", "0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert ANSWER in done.stdout
    share = re.search(r"(\d+)% computed", done.stderr)
    assert share is not None and int(share[1]) < 80


@pytest.mark.model
def test_the_python_example_runs_as_it_stands(long_text: Path, smollm2_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code is not None
    (long_text.parent / "model.gguf").symlink_to(smollm2_path)
    done = run(sys.executable, "-c", code[1], cwd=long_text.parent)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d{4} tokens, \d\d% of the work, first token after [\d.]+ s", done.stdout)
