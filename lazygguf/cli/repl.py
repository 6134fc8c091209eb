"""The interactive conversation: a prompt, commands, and Ctrl-C.

Owns the slash commands and the order of events. Typing is ``LineEditor``'s, what a message means ``message.py``'s,
asking ``ChatSession``'s.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable, Optional, TextIO

from .._names import nearest
from ..errors import LazyError
from ..read.sources import N_SOURCES
from .document import NO_DOCUMENT, Document
from .interrupts import EXIT_INTERRUPTED, settle_interrupt
from .main import say_error
from .message import QUOTES, command_of, message_of, path_of, quotes_are_open
from .session import SETTINGS, ChatSession
from .terminal import Screen
from .text_file import read_text

if TYPE_CHECKING:
    from .history import History

PROMPT, MORE = ">>> ", "... "

_HELP = (
    ("/help, /?", "this list"),
    ("/read FILE", "put a text before the next question"),
    ("/system TEXT", "set the system prompt; without TEXT remove it"),
    ("/set NAME VALUE", f"set {', '.join(SETTINGS)}; alone it shows them"),
    ("/set SWITCH", "history, nohistory, wordwrap, nowordwrap, markdown, nomarkdown"),
    ("/save FILE", "keep the conversation and what was read in a file"),
    ("/load FILE", "go on with a conversation from a file, without reading again"),
    ("/regen", "answer the last question anew"),
    ("/stats", "counts, times and sizes of the last answer"),
    ("/sources [N]", f"the N passages that the last answer leaned on most ({N_SOURCES})"),
    ("/clear", "begin a new conversation"),
    ("/exit, /quit, /bye", "end (also Ctrl-D, or Ctrl-C twice)"),
    ("", ""),
    (f"{QUOTES} ... {QUOTES}", "a message of several lines, also one that begins with /"),
    ("\\ Enter, Alt-Enter", "a new line in the message; pasted lines are one message"),
    ("Ctrl-C", "stops the reading or the answer; clears what is typed"),
    ("Tab, Up, Ctrl-R", "complete commands and files; earlier messages; search them"),
)
_SWITCHES = ("history", "nohistory", "wordwrap", "nowordwrap", "markdown", "nomarkdown")


class Repl:
    """Holds a conversation until the person ends it.

    Args:
        session: the conversation.
        screen: where it is shown.
        typing_on: the terminal on which typing shows; None: lines are read from stdin as they are.
        history: keep messages for later conversations.
    """

    def __init__(
        self, session: ChatSession, screen: Screen, typing_on: Optional[TextIO] = None, history: bool = True
    ) -> None:
        self._session = session
        self._screen = screen
        self._document = NO_DOCUMENT
        self._done = False
        self._commands: dict[str, Callable[[str], None]] = {
            "help": self._help,
            "?": self._help,
            "read": self._read,
            "system": self._system,
            "set": self._set,
            "save": self._save,
            "load": self._load,
            "regen": self._regen,
            "stats": self._stats,
            "sources": self._sources,
            "clear": self._clear,
            "exit": self._exit,
            "quit": self._exit,
            "bye": self._exit,
        }
        self._complaints: list[str] = []
        self._history: Optional[History] = None
        self._read_typed = _read_input
        if typing_on is not None:
            self._edit_lines(typing_on, history)

    def _edit_lines(self, typing_on: TextIO, history: bool) -> None:
        from .history import History, history_path  # prompt_toolkit takes a while to import
        from .line_editor import LineEditor

        self._history = History(history_path(), self._complaints.append, history)
        words: dict[str, Sequence[str]] = {name: () for name in self._commands if name != "?"}
        words["set"] = (*SETTINGS, *_SWITCHES)
        self._read_typed = LineEditor(words, ("read", "save", "load"), self._history, typing_on).read

    def run(self, document: Document = NO_DOCUMENT, question: str = "") -> int:
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
                typed = self._read_typed()
            except EOFError:
                self._screen.note("")
                return 0
            except KeyboardInterrupt:
                if interrupted:
                    return EXIT_INTERRUPTED
                interrupted = True
                self._screen.note("(Ctrl-C again or Ctrl-D ends)")
                settle_interrupt()
                continue
            while self._complaints:
                self._screen.note(self._complaints.pop())
            interrupted = self._guard(self._handle, typed)
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

    def _handle(self, typed: str) -> None:
        text, quoted = message_of(typed)
        command = None if quoted else command_of(text, self._commands)
        if command is None:
            if text.strip():
                self._ask(text)
        elif command.name == "system":  # the only command whose text may have several lines
            self._system("\n".join(part for part in (command.rest, command.more) if part))
        else:
            self._commands[command.name](command.rest)
            if command.more and not self._done:
                self._handle(command.more)

    def _ask(self, question: str) -> None:
        self._session.ask(self._document.asked(question))
        self._document = NO_DOCUMENT

    def _help(self, rest: str) -> None:
        self._screen.table(_HELP)

    def _read(self, rest: str) -> None:
        if not rest:
            raise ValueError("/read needs a file")
        path = path_of(rest)
        self._document = self._document.joined(Document.of_file(path, read_text(path)))
        self._screen.note(f"{len(self._document.text):,} characters stand before the next question")

    def _save(self, rest: str) -> None:
        if not rest:
            raise ValueError("/save needs the name of a file")
        self._session.save(path_of(rest))
        self._screen.note("saved")

    def _load(self, rest: str) -> None:
        if not rest:
            raise ValueError("/load needs a file")
        self._session.load(path_of(rest))
        self._document = NO_DOCUMENT
        n_turns = len(self._session.messages)
        self._screen.note(f"the conversation goes on after {n_turns} message{'s' * (n_turns != 1)}")

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
        if name in _SWITCHES and not value.strip():
            self._switch(name)
        elif name in SETTINGS:
            self._session.set(name, value.strip())
        else:
            raise ValueError(f"unknown setting {name!r}{nearest(name, (*SETTINGS, *_SWITCHES))}")

    def _switch(self, name: str) -> None:
        on = not name.startswith("no")
        what = name[0 if on else len("no") :]
        if what == "history" and self._history is not None:
            self._history.keep = on
        elif what == "wordwrap":
            self._screen.wordwrap = on
        elif what == "markdown":
            self._screen.markdown = "auto" if on else "off"

    def _regen(self, rest: str) -> None:
        self._session.regenerate()

    def _stats(self, rest: str) -> None:
        stats = self._session.stats
        if not stats.n_prompt:
            raise ValueError("nothing was answered yet")
        self._screen.table((name, str(value)) for name, value in stats.to_dict().items())

    def _sources(self, rest: str) -> None:
        try:
            n = int(rest) if rest else N_SOURCES
        except ValueError:
            raise ValueError(f"/sources {rest}: expected a number of passages, such as /sources 5") from None
        self._screen.sources(self._session.sources(n))

    def _clear(self, rest: str) -> None:
        self._session.clear()
        self._document = NO_DOCUMENT
        self._screen.note("a new conversation")

    def _exit(self, rest: str) -> None:
        self._done = True


def _read_input() -> str:
    """What is typed where lines cannot be edited: one line, lines joined by backslashes, or those between quotes."""
    typed = _read_line(PROMPT)
    while True:
        if quotes_are_open(typed):
            typed += "\n" + _read_line(MORE)
        elif typed.endswith("\\"):
            typed = typed[:-1] + "\n" + _read_line(MORE)
        else:
            return typed


def _read_line(prompt: str) -> str:
    if sys.stdout.isatty():
        return input(prompt)
    print(prompt, end="", file=sys.stderr, flush=True)  # stdout carries only answers
    return input()
