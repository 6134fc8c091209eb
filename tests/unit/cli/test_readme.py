"""The README's two promises: the line that does the main job, and the Python example."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXT = ROOT / "tools" / "data" / "jargon.txt"
LONG = 12_000  # characters; about 2,800 tokens of SmolLM2

pytestmark = pytest.mark.model


@pytest.fixture()
def long_text(tmp_path: Path) -> Path:
    path = tmp_path / "some.txt"
    path.write_text(TEXT.read_text(encoding="utf-8")[:LONG], encoding="utf-8")
    return path


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)


def test_the_readmes_first_line_answers_a_question_about_a_long_text(long_text: Path, smollm2_path: Path) -> None:
    first = README.split("\n\n")[1].splitlines()[0].partition("#")[0].strip()
    assert first == "pip install '.[demo]' && lazygguf chat -f some.txt -p \"question\""

    question = "What is this text about?"
    done = run(sys.executable, "-m", "lazygguf", "chat", "-f", long_text.name, "-p", question, cwd=long_text.parent)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) >= 5
    footer = re.search(r"([\d,]+) tokens read \| (\d+)% computed \| first token [\d.]+ s", done.stderr)
    assert footer is not None, done.stderr
    assert int(footer[1].replace(",", "")) >= 2000
    assert int(footer[2]) < 80  # the default schedule reads lazily


def test_the_python_example_runs_as_it_stands(long_text: Path, smollm2_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code is not None
    (long_text.parent / "model.gguf").symlink_to(smollm2_path)
    done = run(sys.executable, "-c", code[1], cwd=long_text.parent)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d{4} tokens, \d\d% of the work, first token after [\d.]+ s", done.stdout)
