"""The command line where streams are closed, full or not UTF-8, and where Ctrl-C comes more than once."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lazygguf.cli.text_file import read_text

pytestmark = pytest.mark.skipif(os.name != "posix", reason="descriptors and signals of POSIX")

TESTS = Path(__file__).parents[2]


def chat(
    args: str, redirections: str = "", told: Any = None, data: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Runs the program of ``tests/chat_program.py`` in a shell."""
    answer = json.dumps({"pieces": ["It is ", "42."], **(told or {})})
    command = [sys.executable, str(TESTS / "chat_program.py"), answer]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(entry or "." for entry in sys.path), **environment}
    line = f"{shlex.join(command)} {args} {redirections}"
    return subprocess.run(["sh", "-c", line], input=data, capture_output=True, env=env, timeout=60)


# ---- streams ------------------------------------------------------------------------------------------


def test_a_closed_stdin_is_an_empty_one() -> None:
    done = chat("-p q --no-show-timings", "<&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"It is 42.\n", b"closed\n")
    done = chat("", "<&-")
    assert done.returncode == 2
    assert done.stderr.startswith(b"lazygguf: error: nothing to ask") and done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("others", ["", "<&-"])
def test_a_closed_stdout_is_one_line_before_the_model_is_opened(others: str) -> None:
    done = chat("-p q", f">&- {others}")
    assert done.returncode == 1
    assert done.stderr.startswith(b"lazygguf: error: stdout is closed") and done.stderr.count(b"\n") == 1


def test_with_a_closed_stderr_the_answer_is_alone() -> None:
    done = chat("-p q", "2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"It is 42.\n", b"")


def test_with_everything_closed_there_is_no_crash() -> None:
    assert chat("-p q", "<&- >&- 2>&-").returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_stdout_is_one_line() -> None:
    done = chat("-p q --no-show-timings", ">/dev/full")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [b"closed", b"lazygguf: error: stdout: No space left on device"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("args", ["-p q", "-p q --json", "-p q --color on -v"])
def test_with_a_full_stderr_the_answer_is_good(args: str) -> None:
    done = chat(args, "2>/dev/full")
    assert done.returncode == 0 and b"It is 42." in done.stdout
    failed = chat("", "2>/dev/full </dev/null")
    assert (failed.returncode, failed.stdout) == (2, b"")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_stdout_cannot_hold_is_replaced_and_said_once(encoding: str) -> None:
    told = {"pieces": ["caf\u00e9 for ", "3 \u20ac or ", "4 \u20ac"]}
    done = chat("-p q --no-show-timings", told=told, PYTHONIOENCODING=encoding)
    assert done.returncode == 0
    assert done.stdout == "caf\u00e9 for 3 ? or 4 ?\n".encode(encoding, "replace")
    assert done.stderr.count(b"which lacks U+") == 1 and b"PYTHONIOENCODING=utf-8" in done.stderr


def test_what_stdout_can_hold_is_not_talked_about() -> None:
    done = chat("-p q --no-show-timings", told={"pieces": ["caf\u00e9"]}, PYTHONIOENCODING="latin-1")
    assert (done.stdout, done.stderr) == (b"caf\xe9\n", b"closed\n")


def test_json_on_a_stdout_that_is_not_utf_8_loses_nothing() -> None:
    done = chat("-p q --json", told={"pieces": ["3 \u20ac"]}, PYTHONIOENCODING="ascii")
    assert json.loads(done.stdout)["answer"] == "3 \u20ac"


# ---- documents ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-be"])
def test_a_document_is_read_in_the_encoding_of_its_mark(tmp_path: Path, encoding: str) -> None:
    text = "3 \u20ac, \u6570, \U0001f600\r\nend"
    mark = "\ufeff" if encoding.endswith("-be") else ""
    (tmp_path / "a.txt").write_bytes((mark + text).encode(encoding))
    assert read_text(str(tmp_path / "a.txt")) == "3 \u20ac, \u6570, \U0001f600\nend"


def test_utf_16_may_come_through_a_pipe() -> None:
    done = chat("--no-show-timings", told={"pieces": ["{asked}"]}, data="Wie viel \u20ac?".encode("utf-16"))
    assert json.loads(done.stdout) == "Wie viel \u20ac?"


@pytest.mark.parametrize("name", ["UTF-16LE", "UTF-16BE"])
def test_utf_16_without_a_mark_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.txt").write_bytes("A plain text.".encode(name))
    with pytest.raises(ValueError, match=f"looks like {name} without a byte order mark; iconv"):
        read_text(str(tmp_path / "a.txt"))


# ---- Ctrl-C -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "interrupts",
    [
        {"answer": 1},
        {"answer": 2},
        {"answer": 1, "exit": 1},
        {"exit": 1},
        {"end": 2},
        {"answer": 1, "end": 3},
        {"del": 1},
        {"del": 1, "exit": 1},
    ],
    ids=str,
)
def test_a_second_ctrl_c_shows_no_traceback_and_what_cleans_up_runs_to_its_end(interrupts: dict[str, int]) -> None:
    done = chat("-p q --no-show-timings", told={"interrupts": interrupts})
    assert done.returncode == (0 if set(interrupts) == {"end"} else 130)
    assert done.stderr == (b"" if set(interrupts) == {"exit"} else b"closed\n")


def test_the_third_ctrl_c_ends_a_program_that_hangs_while_it_cleans_up() -> None:
    done = chat("-p q --no-show-timings", told={"interrupts": {"answer": 1, "exit": 2}})
    assert (done.returncode, done.stderr) == (130, b"")
