"""The fuzz targets for a short while, with the same cases every time; ``tests/fuzz/run`` runs them for longer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "runner.py"
CASES = {"gguf": 1500, "folder": 200, "session": 40, "sessionfile": 1500, "schema": 3000}


def fuzz(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


@pytest.mark.parametrize("target", CASES)
def test_a_target_finds_nothing(target: str) -> None:
    run = fuzz("--seed", 1, "--cases", CASES[target], "--seconds", 600, target)
    assert run.returncode == 0 and f"{target}: {CASES[target]} cases" in run.stdout, run.stdout + run.stderr


@pytest.mark.parametrize(("body", "said"), [("os.abort()", "code -6"), ("1 // 0", "ZeroDivisionError")])
def test_a_failure_names_the_command_that_repeats_it(body: str, said: str, tmp_path: Path) -> None:
    folder = tmp_path / "fuzz"
    folder.mkdir()
    program = folder / "runner.py"
    program.write_text(PROGRAM.read_text(encoding="utf-8"), encoding="utf-8")
    case = f"import os\n\ndef open_target(folder):\n    return lambda rng: {body} if rng.random() > 0.9 else None\n"
    (folder / "target_schema.py").write_text(case, encoding="utf-8")
    command = [sys.executable, str(program), "--seed", "3", "--cases", "1000", "schema"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": ""})
    assert run.returncode == 1 and said in run.stdout
    again = run.stdout.partition("again with: tests/fuzz/run ")[2].split()
    repeated = subprocess.run([sys.executable, str(program), *again], capture_output=True, text=True, timeout=300)
    assert repeated.returncode == 1 and "schema: 0 cases" in repeated.stdout and said in repeated.stdout
