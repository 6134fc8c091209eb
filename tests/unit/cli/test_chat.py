"""``lazygguf chat`` as a process on a tiny model: pipes, a terminal, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from pseudo_terminal import Pty
from tiny_gguf import TinyConfig

import lazygguf

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and terminals of POSIX")

ENDLESS = 'root ::= "a" root'
LONG = "the cat sat on the mat and the dog ran to the door. " * 2000
WAIT_S = 60


@pytest.fixture(scope="module")
def path(tiny_model: Callable[[TinyConfig], tuple[Path, Any]]) -> str:
    return str(tiny_model(TinyConfig(tokenizer="bpe", n_ctx_train=1 << 18))[0])


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    source = str(Path(lazygguf.__file__).parent.parent)
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")]),
        "TERM": "xterm",
    }


def command(path: str, *args: str) -> list[str]:
    return [sys.executable, "-m", "lazygguf", "chat", "-m", path, "-t", "1", "-c", "200000", *args]


def run(environment: dict[str, str], path: str, *args: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command(path, *args), input=data, capture_output=True, env=environment, timeout=WAIT_S)


def test_a_piped_document_is_answered(environment: dict[str, str], path: str) -> None:
    done = run(environment, path, "-p", "where?", "-n", "8", "--temp", "0", data=b"the cat sat on the mat")
    assert done.returncode == 0
    assert done.stdout.endswith(b"\n") and b"tokens read" in done.stderr
    assert b"\x1b" not in done.stderr  # no bar and no colours in a file


def test_json_holds_the_answer_and_the_stats(environment: dict[str, str], path: str) -> None:
    done = run(
        environment,
        path,
        "-p",
        "where?",
        "-n",
        "8",
        "--json",
        "--keep",
        "1:0.5,3:0.2",
        data=b"the cat " * 300,
    )
    stats = json.loads(done.stdout)["stats"]
    assert stats["token_share"] < 1 and stats["kept"][1] < stats["n_prompt"]
    assert done.stderr == b""


def test_a_prompt_longer_than_the_context_is_one_line_with_both_numbers(environment: dict[str, str], path: str) -> None:
    done = run(environment, path, "-c", "64", "-p", "where?", "--keep", "off", data=b"the cat " * 300)
    assert done.returncode == 1 and done.stdout == b""
    assert b"exceed context window of 64" in done.stderr and b"--ctx-size" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_closed_pipe_ends_the_program_quietly(environment: dict[str, str], path: str) -> None:
    process = subprocess.Popen(
        command(path, "-p", "q", "-n", "-1", "--keep", "off", "--grammar", ENDLESS),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.read(3) == b"aaa"
    process.stdout.close()
    assert process.wait(WAIT_S) == 141
    assert process.stderr.read() == b""


@pytest.mark.parametrize("while_reading", [True, False])
def test_ctrl_c_ends_a_single_answer_with_130(
    environment: dict[str, str], path: str, tmp_path: Path, while_reading: bool
) -> None:
    (tmp_path / "long.txt").write_text(LONG if while_reading else "short", encoding="utf-8")
    process = subprocess.Popen(
        command(path, "-f", str(tmp_path / "long.txt"), "-p", "q", "-st", "-n", "-1", "--grammar", ENDLESS),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    assert process.stdout is not None and process.stderr is not None
    if while_reading:
        time.sleep(3)
    else:
        assert process.stdout.read(3) == b"aaa"
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(WAIT_S) == 130
    assert time.monotonic() - begin < 5
    assert b"Traceback" not in process.stderr.read()


def wait_for_prompt(terminal: Pty) -> None:
    """Waits for the prompt, and for the editor to listen: it misses a Ctrl-C in its first moment."""
    terminal.wait_for(b">>> ")
    time.sleep(0.5)


@pytest.fixture
def terminal(environment: dict[str, str], path: str, tmp_path: Path) -> Iterator[Pty]:
    (tmp_path / "long.txt").write_text(LONG, encoding="utf-8")
    args = command(path, "-n", "-1", "--grammar", ENDLESS, "-ub", "4096", "-f", str(tmp_path / "long.txt"))
    opened = Pty(args, environment)
    yield opened
    opened.close()


def test_ctrl_c_stops_the_reading_and_the_answer_and_the_session_goes_on(terminal: Pty) -> None:
    wait_for_prompt(terminal)
    terminal.type(b"where is the cat?\n")
    terminal.wait_for(b"reading prompt")
    time.sleep(1)
    terminal.type(b"\x03")
    terminal.wait_for(b"(stopped)")
    wait_for_prompt(terminal)
    terminal.type(b"/clear\n")
    terminal.wait_for(b"a new conversation")
    wait_for_prompt(terminal)
    terminal.type(b"and now?\n")
    terminal.wait_for(b"aaaaaa")
    terminal.type(b"\x03")
    terminal.wait_for(b"(stopped)")
    wait_for_prompt(terminal)
    terminal.type(b"/stats\n")
    terminal.wait_for(b"n_decoded")
    wait_for_prompt(terminal)
    terminal.type(b"\x04")
    assert terminal.end() == 0


def test_ctrl_c_twice_at_the_prompt_ends_with_130(terminal: Pty) -> None:
    wait_for_prompt(terminal)
    terminal.type(b"\x03")
    terminal.wait_for(b"Ctrl-C again")
    wait_for_prompt(terminal)
    terminal.type(b"\x03")
    assert terminal.end() == 130
