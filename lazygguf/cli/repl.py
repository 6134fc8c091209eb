"""The interactive conversation: a prompt, commands, and Ctrl-C.

Owns reading what a person types (history, several lines) and the slash commands. Asking is ``ChatSession``'s.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Callable, Optional

from .._names import nearest
from ..errors import LazyError
from .interrupts import EXIT_INTERRUPTED, settle_interrupt
from .main import say_error
from .session import SETTINGS, ChatSession
from .terminal import Screen
from .text_file import join_prompt, read_text

PROMPT, MORE = ">>> ", "... "
QUOTES = '"""'

_HELP = """\
/help, /?          this list
/read FILE         put a text before the next question
/system TEXT       set the system prompt; without TEXT remove it
/set NAME VALUE    set {settings}; alone it shows them
/regen             answer the last question anew
/stats             counts, times and sizes of the last answer
/clear             begin a new conversation
/exit, /quit, /bye end (also Ctrl-D, or Ctrl-C twice)

A backslash at the end of a line continues it; {quotes} begins and ends a text of several lines.
Ctrl-C stops the reading or the answer; the conversation goes on."""


class Repl:
    """Holds a conversation until the person ends it."""

    def __init__(self, session: ChatSession, screen: Screen) -> None:
        self._session = session
        self._screen = screen
        self._document = ""
        self._done = False
        self._commands: dict[str, Callable[[str], None]] = {
            "help": self._help,
            "?": self._help,
            "read": self._read,
            "system": self._system,
            "set": self._set,
            "regen": self._regen,
            "stats": self._stats,
            "clear": self._clear,
            "exit": self._exit,
            "quit": self._exit,
            "bye": self._exit,
        }
        _use_readline([f"/{name}" for name in self._commands if name != "?"])

    def run(self, document: str = "", question: str = "") -> int:
        """Asks the question if there is one, then what the person types; returns the exit code.

        Args:
            document: stands before the first question.
            question: the first question, "" to wait for one.
        """
        self._document = document
        if question:
            self._guard(self._ask, question)
        else:
            self._screen.note("/help lists the commands, Ctrl-D ends")
        interrupted = False
        while not self._done:
            try:
                text = _read_input()
            except EOFError:
                self._screen.note("")
                return 0
            except KeyboardInterrupt:
                if interrupted:
                    return EXIT_INTERRUPTED
                interrupted = True
                self._screen.note("\n(Ctrl-C again or Ctrl-D ends)")
                settle_interrupt()
                continue
            interrupted = self._guard(self._handle, text)
        return 0

    def _guard(self, act: Callable[[str], None], text: str) -> bool:
        """Runs one turn; errors are shown and the conversation goes on. True when it was interrupted."""
        try:
            act(text)
        except KeyboardInterrupt:
            self._screen.note("\n(stopped)")
            settle_interrupt()
            return True
        except (LazyError, ValueError, OSError, MemoryError) as error:
            self._screen.error(say_error(error))
        return False

    def _handle(self, text: str) -> None:
        if text.lstrip().startswith("/"):
            name, _, rest = text.strip()[1:].partition(" ")
            if name not in self._commands:
                raise ValueError(f"unknown command /{name}{nearest(name, self._commands)}")
            self._commands[name](rest.strip())
        elif text.strip():
            self._ask(text)

    def _ask(self, question: str) -> None:
        self._session.ask(join_prompt(self._document, question))
        self._document = ""

    def _help(self, rest: str) -> None:
        self._screen.note(_HELP.format(settings=", ".join(SETTINGS), quotes=QUOTES))

    def _read(self, path: str) -> None:
        if not path:
            raise ValueError("/read needs a file")
        self._document = join_prompt(self._document, read_text(os.path.expanduser(path)))
        self._screen.note(f"{len(self._document):,} characters stand before the next question")

    def _system(self, text: str) -> None:
        self._session.system = text or None
        self._screen.note("system prompt set" if text else "system prompt removed")

    def _set(self, rest: str) -> None:
        name, _, value = rest.replace("=", " ", 1).partition(" ")
        if not name:
            settings = self._session.settings
            self._screen.note("  ".join(f"{n} {settings.get(option)}" for n, (option, _) in SETTINGS.items()))
            return
        name = name.lstrip("-").replace("-", "_")
        if name not in SETTINGS:
            raise ValueError(f"unknown setting {name!r}{nearest(name, SETTINGS)}")
        self._session.set(name, value.strip())

    def _regen(self, rest: str) -> None:
        self._session.regenerate()

    def _stats(self, rest: str) -> None:
        lines = [f"{name:12} {value}" for name, value in self._session.stats.to_dict().items()]
        self._screen.note("\n".join(lines))

    def _clear(self, rest: str) -> None:
        self._session.clear()
        self._document = ""
        self._screen.note("a new conversation")

    def _exit(self, rest: str) -> None:
        self._done = True


def _read_input() -> str:
    """What the person enters: one line, lines joined by backslashes, or several between triple quotes."""
    line = _read_line(PROMPT)
    if line.lstrip().startswith(QUOTES):
        return _read_quoted(line.lstrip()[len(QUOTES) :])
    lines = []
    while line.endswith("\\"):
        lines.append(line[:-1])
        line = _read_line(MORE)
    return "\n".join([*lines, line])


def _read_quoted(line: str) -> str:
    lines = []
    while QUOTES not in line:
        lines.append(line)
        line = _read_line(MORE)
    return "\n".join([*lines, line.partition(QUOTES)[0]]).strip("\n")


def _read_line(prompt: str) -> str:
    if sys.stdout.isatty():
        return input(prompt)
    print(prompt, end="", file=sys.stderr, flush=True)  # stdout carries only answers
    return input()


def _use_readline(commands: list[str]) -> None:
    """Line editing, history and completion of commands, where Python was built with readline."""
    with contextlib.suppress(ImportError):
        import readline

        def complete(text: str, state: int) -> Optional[str]:
            found = [command for command in commands if text.startswith("/") and command.startswith(text)]
            return found[state] if state < len(found) else None

        readline.set_completer(complete)
        readline.set_completer_delims(" ")
        readline.parse_and_bind("tab: complete")
