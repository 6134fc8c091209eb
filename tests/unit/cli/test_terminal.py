"""``lazygguf chat`` typed at a terminal: a real one (tmux), at 80 and 40 columns, and a bare pseudo-terminal."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
from pseudo_terminal import WAIT_S, Pty, until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="terminals of POSIX")

TESTS = Path(__file__).parents[2]
ECHO = {"pieces": ["asked ", "{asked}"]}
PASTE = "Dear Ann,\nthe boiler is broken.\nWhat is broken?"


def command(told: Any, *args: str) -> list[str]:
    return [sys.executable, str(TESTS / "chat_program.py"), json.dumps(told), "--no-show-timings", *args]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name not in ("TMUX", "LAZYGGUF_NOHISTORY")}
    path = os.pathsep.join(entry or "." for entry in sys.path)
    return {**env, "PYTHONPATH": path, "XDG_STATE_HOME": str(tmp_path / "state"), "TERM": "xterm-256color"}


# ---- a pseudo-terminal --------------------------------------------------------------------------------


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Callable[..., Pty]]:
    """Starts the chat in a pseudo-terminal: what it answers, its options, what stands behind it in a shell."""
    opened: list[Pty] = []

    def open_one(told: Any = ECHO, *args: str, behind: str = "") -> Pty:
        line = f"{shlex.join(command(told, *args))} {behind}"
        opened.append(Pty(["sh", "-c", line] if behind else command(told, *args), environment))
        opened[-1].wait_for(b">>> ")
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def asked(terminal: Pty) -> Any:
    """The question that the model was asked, as its answer says."""
    terminal.wait_for(b"asked ")
    return json.JSONDecoder().raw_decode(terminal.wait_for(b'"\r\n').decode() + '"')[0]


def test_lines_that_arrive_together_are_one_message(start: Callable[..., Pty]) -> None:
    terminal = start(ECHO, "--nowordwrap")
    os.write(terminal.fd, PASTE.encode() + b"\n")
    assert asked(terminal) == PASTE
    terminal.type(b"\x1b[200~" + PASTE.replace("\n", "\r").encode() + b"\r\x1b[201~")
    terminal.type(b"\n")
    assert asked(terminal) == PASTE


def test_a_command_that_arrives_with_a_question_is_obeyed(start: Callable[..., Pty]) -> None:
    terminal = start(ECHO)
    os.write(terminal.fd, b"/system Be odd.\nOne\n")
    terminal.wait_for(b"system prompt set")
    assert asked(terminal) == "One"


@pytest.mark.parametrize("behind", ["", "| cat", "2>&1 | cat"])
def test_a_line_longer_than_a_terminals_buffer_is_whole(start: Callable[..., Pty], behind: str) -> None:
    line = "word " * 1200 + "- how many words?"
    terminal = start(ECHO, "--nowordwrap", behind=behind)
    terminal.type(line.encode() + b"\n")
    assert asked(terminal) == line


def test_a_dumb_terminal_gets_no_escapes_and_loses_nothing(
    start: Callable[..., Pty], environment: dict[str, str]
) -> None:
    environment["TERM"] = "dumb"
    terminal = start(ECHO, "--nowordwrap", "-co", "off")
    os.write(terminal.fd, PASTE.encode() + b"\n")
    shown = terminal.wait_for(b"asked ")
    assert b"Dear Ann,\r\nthe boiler" in shown and b"\x1b" not in shown
    terminal.wait_for(b">>> ")
    line = "word " * 1200 + "end"
    terminal.type(line.encode() + b"\n")
    assert asked(terminal) == line


def test_stdout_in_a_pipe_gets_only_the_answer(start: Callable[..., Pty], tmp_path: Path) -> None:
    terminal = start({"pieces": ["It is 42."]}, behind=f"> {tmp_path / 'out'}")
    terminal.type(b"One\n")
    terminal.wait_for(b">>> ")
    terminal.type(b"/bye\n")
    assert terminal.end() == 0
    assert (tmp_path / "out").read_bytes() == b"It is 42.\n"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            b'"""The word is apple.\nRemember it.""" What is the word?\n',
            "The word is apple.\nRemember it. What is the word?",
        ),
        (b'"""\nf = """ doc """\n"""\n', 'f = """ doc """'),
        (b'"""/etc is what?"""\n', "/etc is what?"),
        (b"one\\\ntwo\n", "one\\\ntwo"),  # together: pasted, where a backslash is text
        (b"/etc/hosts says what?\n", "/etc/hosts says what?"),
        (b"/tmp is full, why?\n", "/tmp is full, why?"),
        ("caf\u00e9 \U0001f600\n".encode(), "caf\u00e9 \U0001f600"),
        (b"caf\xe9\n", "caf\ufffd"),
    ],
)
def test_what_is_typed_is_asked(start: Callable[..., Pty], typed: bytes, said: str) -> None:
    terminal = start(ECHO, "--nowordwrap")
    os.write(terminal.fd, typed)
    assert asked(terminal) == said


def test_a_backslash_continues_a_line_and_ctrl_d_in_a_block_ends_nothing(start: Callable[..., Pty]) -> None:
    terminal = start()
    for typed in (b"one\\\n", b"two\n"):
        os.write(terminal.fd, typed)
        if typed != b"two\n":
            terminal.wait_for(b"... ")
    assert asked(terminal) == "one\ntwo"
    os.write(terminal.fd, b'"""a\n')
    terminal.wait_for(b"... ")
    os.write(terminal.fd, b"\x04")
    os.write(terminal.fd, b'b"""\n')
    assert asked(terminal) == "a\nb"


def test_ctrl_c_over_a_typed_line_clears_it_also_after_a_stopped_answer(
    start: Callable[..., Pty], tmp_path: Path
) -> None:
    terminal = start({"pieces": ["asked {asked}", "end"], "go": str(tmp_path / "go")})
    terminal.type(b"One\n")
    terminal.wait_for(b'asked "One"')
    terminal.type(b"\x03")
    terminal.wait_for(b"(stopped)")
    terminal.wait_for(b">>> ")
    terminal.type(b"half a line")
    terminal.wait_for(b"line")
    terminal.type(b"\x03")
    terminal.wait_for(b">>> ")
    (tmp_path / "go").touch()
    terminal.type(b"Two\n")
    terminal.wait_for(b'asked "Two"')
    terminal.wait_for(b">>> ")
    terminal.type(b"\x03")
    terminal.wait_for(b"Ctrl-C again")
    terminal.wait_for(b">>> ")
    terminal.type(b"\x03")
    assert terminal.end() == 130
    assert b"Traceback" not in terminal.shown


def test_what_is_typed_during_an_answer_is_not_echoed_and_waits(start: Callable[..., Pty], tmp_path: Path) -> None:
    terminal = start({"pieces": ["asked {asked}", "end"], "go": str(tmp_path / "go")})
    terminal.type(b"One\n")
    terminal.wait_for(b'asked "One"')
    terminal.type(b"Two")
    (tmp_path / "go").touch()
    assert b"Two" not in terminal.wait_for(b"end")
    terminal.wait_for(b"Two")
    terminal.type(b"\n")
    terminal.wait_for(b'asked "Two"')


def test_the_terminal_is_given_back_as_it_was(start: Callable[..., Pty]) -> None:
    import termios

    terminal = start(behind="; stty -a; echo the end")
    assert not termios.tcgetattr(terminal.fd)[3] & termios.ECHO
    terminal.type(b"\x04")
    shown = terminal.wait_for(b"the end")
    assert b" echo " in shown.replace(b"\r\n", b" ") and b" icanon " in shown.replace(b"\r\n", b" ")


def test_a_terminal_that_is_gone_ends_the_chat(environment: dict[str, str]) -> None:
    terminal = Pty(["sh", "-c", f"trap '' HUP; exec {shlex.join(command(ECHO))}"], environment)
    terminal.wait_for(b">>> ")
    os.close(terminal.fd)
    codes: list[int] = []

    def ended() -> bool:
        pid, status = os.waitpid(terminal.pid, os.WNOHANG)
        codes.append(status)
        return pid != 0

    try:
        until(ended, lambda: "running without its terminal")
    except BaseException:
        os.kill(terminal.pid, signal.SIGKILL)
        raise
    assert os.waitstatus_to_exitcode(codes[-1]) in (0, 1)  # 1: not even its last line can be written


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        (b"/read my\t", "my notes.txt"),
        (b'/read "my\t', "my notes.txt"),
        (b"/read 'my\t", "my notes.txt"),
        (b"/read my\\ \t", "my notes.txt"),
        (b"/read sub\ta\t", "sub/a.txt"),
    ],
)
def test_read_completes_and_takes_names_with_spaces_and_quotes(
    start: Callable[..., Pty], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: bytes, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / name).write_text("document", encoding="utf-8")
    terminal = start()
    terminal.type(typed + b"\n")
    terminal.wait_for(b"8 characters stand before")
    terminal.type(b"One\n")
    assert asked(terminal) == "document\n\nOne"


def test_a_command_is_completed(start: Callable[..., Pty]) -> None:
    terminal = start()
    terminal.type(b"/sta\t\n")
    terminal.wait_for(b"token_share")


# ---- history ------------------------------------------------------------------------------------------


def leave(terminal: Pty, *lines: bytes) -> None:
    for line in lines:
        terminal.type(line + b"\n")
        terminal.wait_for(b">>> ")
    terminal.type(b"\x04")
    assert terminal.end() == 0


def test_messages_are_there_the_next_time_and_only_for_their_owner(start: Callable[..., Pty], tmp_path: Path) -> None:
    leave(start(), b"One")
    file = tmp_path / "state" / "lazygguf" / "history"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    terminal = start()
    terminal.type(b"\x1b[A\n")
    assert asked(terminal) == "One"


@pytest.mark.parametrize("how", ["option", "variable", "command"])
def test_the_history_can_be_turned_off(
    start: Callable[..., Pty], environment: dict[str, str], tmp_path: Path, how: str
) -> None:
    if how == "variable":
        environment["LAZYGGUF_NOHISTORY"] = "1"
    lines = [b"/set nohistory", b"One"] if how == "command" else [b"One"]
    leave(start(ECHO, *(["--nohistory"] if how == "option" else [])), *lines)
    file = tmp_path / "state" / "lazygguf" / "history"
    assert not file.exists() or "One" not in file.read_text(encoding="utf-8")


def test_a_history_that_cannot_be_written_is_one_note(start: Callable[..., Pty], tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file, not a folder", encoding="utf-8")
    terminal = start()
    terminal.type(b"One\n")
    terminal.wait_for(b"messages are kept for this conversation only")
    assert asked(terminal) == "One"
    terminal.wait_for(b">>> ")
    terminal.type(b"\x1b[A\n")
    assert asked(terminal) == "One"
    assert b"for this conversation only" not in terminal.wait_for(b">>> ")


def test_a_history_that_has_grown_large_loses_its_older_half(start: Callable[..., Pty], tmp_path: Path) -> None:
    file = tmp_path / "state" / "lazygguf" / "history"
    file.parent.mkdir(parents=True)
    entries = "".join(f"\n# 2026\n+message {i}\n" for i in range(60_000))
    file.write_text(entries, encoding="utf-8")
    terminal = start()
    terminal.type(b"\x1b[A\n")
    assert asked(terminal) == "message 59999"
    kept = file.read_text(encoding="utf-8")
    assert len(kept) < len(entries) * 0.6 and kept.startswith("\n# 2026\n+message ")
    assert [path.name for path in file.parent.iterdir()] == ["history"]


# ---- a real terminal ----------------------------------------------------------------------------------

TMUX = shutil.which("tmux")
needs_tmux = pytest.mark.skipif(TMUX is None, reason="no tmux")


class Tmux:
    """A terminal of tmux's, of a server of its own."""

    def __init__(self, n_columns: int, args: list[str], environment: dict[str, str]) -> None:
        self._server = f"lazygguf-{uuid.uuid4().hex[:8]}"
        self._environment = environment
        size = ("-x", str(n_columns), "-y", "24")
        self._run("-f", os.devnull, "new-session", "-d", *size, f"{shlex.join(args)}; echo code $?; cat")

    def _run(self, *args: str, data: Optional[str] = None) -> str:
        line = [str(TMUX), "-L", self._server, *args]
        done = subprocess.run(
            line, input=data, capture_output=True, text=True, encoding="utf-8", env=self._environment, timeout=WAIT_S
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def type(self, text: str, *keys: str) -> None:
        if text:
            self._run("send-keys", "-l", text)
        for key in keys:
            self._run("send-keys", key)

    def paste(self, text: str) -> None:
        self._run("load-buffer", "-", data=text)
        self._run("paste-buffer", "-p")

    def lines(self) -> list[str]:
        """What the screen shows, and what has left it above."""
        return self._run("capture-pane", "-p", "-S", "-1000").rstrip("\n").split("\n")

    def wait_for(self, *texts: str) -> list[str]:
        """Waits until lines are shown that begin so, in this order."""

        def shown() -> bool:
            lines = iter(self.lines())
            return all(any(line.startswith(text) for line in lines) for text in texts)

        until(shown, lambda: "\n".join(self.lines()))
        return self.lines()

    def close(self) -> None:
        with contextlib.suppress(AssertionError):
            self._run("kill-server")


@pytest.fixture
def tmux(environment: dict[str, str]) -> Iterator[Callable[..., Tmux]]:
    opened: list[Tmux] = []

    def open_one(n_columns: int, told: Any = ECHO, *args: str) -> Tmux:
        opened.append(Tmux(n_columns, command(told, *args), {**environment, "LC_ALL": "C.UTF-8"}))
        opened[-1].wait_for(">>>")
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


SENTENCE = "The lighthouse was built in eighteen hundred and seven by somebody called Robert Stevenson, it is said."


@needs_tmux
@pytest.mark.parametrize("n_columns", [80, 40])
def test_words_are_not_broken(tmux: Callable[..., Tmux], n_columns: int) -> None:
    pieces = [SENTENCE[i : i + 3] for i in range(0, len(SENTENCE), 3)]
    terminal = tmux(n_columns, {"pieces": [*pieces, "\n\nEnd\n"]})
    terminal.type("One", "Enter")
    lines = terminal.wait_for(">>> One", "End", ">>>")
    begin = lines.index(">>> One") + 1
    answer = lines[begin : lines.index("", begin)]
    assert " ".join(line.strip() for line in answer) == SENTENCE
    assert all(len(line) < n_columns for line in answer)
    assert len(answer) == {80: 2, 40: 3}[n_columns]
    terminal.type("/help", "Enter")
    words = " ".join(terminal.wait_for(">>> /help", "Tab", ">>>")).split()
    assert {"question", "conversation", "messages;", "answer;"} <= set(words)


@needs_tmux
@pytest.mark.parametrize("n_columns", [80, 40])
def test_a_paste_is_one_message_and_can_be_edited(tmux: Callable[..., Tmux], n_columns: int) -> None:
    terminal = tmux(n_columns)
    terminal.paste(PASTE)
    terminal.wait_for(">>> Dear Ann,", "... the boiler is broken.", "... What is broken?")
    terminal.type("", "Up", "Up", "End")
    terminal.type(" Bob,", "Enter")
    lines = terminal.wait_for(">>> Dear Ann, Bob,", "asked", ">>>")
    said = "".join(lines[next(i for i, line in enumerate(lines) if line.startswith("asked")) :])
    assert "Bob" in said and "broken?" in said
    assert sum(line.startswith("asked") for line in lines) == 1


@needs_tmux
@pytest.mark.parametrize("n_columns", [80, 40])
def test_typing_during_an_answer_stays_out_of_it(tmux: Callable[..., Tmux], tmp_path: Path, n_columns: int) -> None:
    terminal = tmux(n_columns, {"pieces": ["asked {asked} ", "end"], "go": str(tmp_path / "go")})
    terminal.type("One", "Enter")
    terminal.wait_for(">>> One", 'asked "One"')
    terminal.type("Two")
    (tmp_path / "go").touch()
    terminal.wait_for(">>> One", 'asked "One" end', ">>> Two")
    terminal.type("", "Enter")
    terminal.wait_for(">>> Two", 'asked "Two" end', ">>>")


@needs_tmux
def test_a_typed_line_is_cleared_by_ctrl_c_and_ctrl_d_ends(tmux: Callable[..., Tmux]) -> None:
    terminal = tmux(40)
    terminal.type("half a line", "C-c")
    terminal.wait_for(">>> half a line", ">>>")
    terminal.type('"""a', "Enter", "C-d")
    terminal.type('b""" c', "Enter")
    terminal.wait_for('>>> """a', '... b""" c', 'asked "a\\nb c"', ">>>")
    terminal.type("", "C-d")
    terminal.wait_for("code 0")


@needs_tmux
@pytest.mark.parametrize("n_columns", [80, 40])
def test_markdown_is_shown_as_what_it_means(tmux: Callable[..., Tmux], n_columns: int) -> None:
    pieces = [
        "Some **bo",
        "ld** words.\n\n- one\n- two\n\n",
        "```python\ndef f():\n",
        "    return 1\n```\n",
        "The `end`.",
    ]
    terminal = tmux(n_columns, {"pieces": pieces}, "--markdown", "auto")
    terminal.type("One", "Enter")
    lines = terminal.wait_for(">>> One", "Some bold words.", "The end.", ">>>")
    begin = lines.index(">>> One") + 1
    shown = [line.strip() for line in lines[begin : lines.index("The end.") + 1]]
    assert shown == ["Some bold words.", "", "\u2022 one", "\u2022 two", "", "def f():", "return 1", "", "The end."]


@needs_tmux
def test_an_answer_taller_than_the_screen_is_shown_once_as_markdown(tmux: Callable[..., Tmux]) -> None:
    pieces = [f"{i}. item\n" for i in range(1, 61)]
    terminal = tmux(80, {"pieces": pieces}, "--markdown", "auto")
    terminal.type("One", "Enter")
    lines = terminal.wait_for(">>> One", " 60 item", ">>>")
    assert [int(line.split()[0]) for line in lines if line.endswith(" item")] == list(range(1, 61))
