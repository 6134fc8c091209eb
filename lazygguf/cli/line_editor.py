"""Typing a message at a terminal: editing, history, completion, pasted text, several lines.

Owns the keys (``prompt_toolkit``). What a message means is ``message.py``'s.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TextIO

from prompt_toolkit import PromptSession
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import History
from prompt_toolkit.input.vt100 import Vt100Input
from prompt_toolkit.key_binding import KeyBindings, KeyPress, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.output import Output
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.shortcuts import CompleteStyle
from prompt_toolkit.utils import is_dumb_terminal

from .message import QUOTES, command_of, quotes_are_open

if TYPE_CHECKING:
    from prompt_toolkit.formatted_text import StyleAndTextTuples

PROMPT, MORE = ">>> ", "... "
_STYLE = "fg:ansidefault"  # with a style the space behind a prompt is written; else only the cursor moves
_BURST = 32  # characters that arrive at once, from which on they are inserted at once


class LineEditor:
    """Reads messages from the terminal that stdin is.

    Args:
        commands: names of the commands, and for each the words that may follow it.
        paths: names of the commands that a path follows.
        history: earlier messages.
        shown_on: the terminal on which typing shows.
    """

    def __init__(
        self, commands: Mapping[str, Collection[str]], paths: Collection[str], history: History, shown_on: TextIO
    ) -> None:
        self._commands = commands
        # named through the app session, since PromptSession looks for a dumb terminal only where it is given no output
        with create_app_session(input=_TerminalInput(sys.stdin), output=_output(shown_on)):
            self._session: PromptSession[str] = PromptSession(
                [(_STYLE, PROMPT)],
                multiline=True,
                prompt_continuation=_continuation,
                completer=CommandCompleter(commands, paths),
                complete_while_typing=False,
                complete_style=CompleteStyle.READLINE_LIKE,
                history=history,
                enable_suspend=True,
                enable_open_in_editor=True,
                key_bindings=self._keys(),
            )

    def read(self) -> str:
        """What the person typed, as it was typed; "" after a Ctrl-C that cleared a line.

        Raises:
            EOFError: Ctrl-D where nothing is typed, or the terminal is gone.
            KeyboardInterrupt: Ctrl-C where nothing is typed.
        """
        typed = self._session.prompt()
        # bytes that are not UTF-8 come as lone surrogates
        return typed.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()
        editing = Condition(lambda: self._session.app.layout.has_focus(self._session.default_buffer))

        @keys.add("enter", filter=editing)
        def enter(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            if quotes_are_open(buffer.text) or (_text_follows(event) and not self._is_command(buffer.text)):
                buffer.insert_text("\n")
            elif buffer.text.endswith("\\") and buffer.document.is_cursor_at_the_end:
                buffer.delete_before_cursor()
                buffer.insert_text("\n")
            else:
                buffer.validate_and_handle()

        @keys.add("escape", "enter", filter=editing)
        def new_line(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        @keys.add("c-c", filter=editing)
        def interrupt(event: KeyPressEvent) -> None:
            if event.current_buffer.text:
                event.app.exit(result="", style="class:aborting")
            else:
                event.app.exit(exception=KeyboardInterrupt(), style="class:aborting")

        return keys

    def _is_command(self, text: str) -> bool:
        """Whether a line is a command, which is one line also where more lines arrive with it."""
        with contextlib.suppress(ValueError):
            return not text.lstrip().startswith(QUOTES) and command_of(text, self._commands) is not None
        return False


class CommandCompleter(Completer):
    """Completes the names of commands, the words behind them, and paths, also in quotes and with spaces.

    Args:
        commands: as in ``LineEditor``.
        paths: as in ``LineEditor``.
    """

    def __init__(self, commands: Mapping[str, Collection[str]], paths: Collection[str]) -> None:
        self._commands = commands
        self._paths = paths
        self._files = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """What may follow the text before the cursor."""
        text = document.text_before_cursor
        command, space, rest = text.partition(" ")
        if "\n" in text or not text.startswith("/"):
            return
        if not space:
            yield from _beginning_with(command, [f"/{name}" for name in self._commands])
        elif command[1:] in self._paths:
            yield from self._path_completions(rest.lstrip(), complete_event)
        elif command[1:] in self._commands:
            yield from _beginning_with(rest, self._commands[command[1:]])

    def _path_completions(self, typed: str, event: CompleteEvent) -> Iterator[Completion]:
        quote = typed[:1] if typed[:1] in ("'", '"') else ""
        # a shell writes "\ " for a space, as terminals do for a file that is dropped on them
        escaped = not quote and "\\ " in typed
        path = typed[len(quote) :].replace("\\ ", " ") if escaped else typed[len(quote) :]
        for found in self._files.get_completions(Document(path), event):
            if not (path + found.text).isprintable():
                continue
            folder = os.path.isdir(os.path.expanduser(path + found.text))
            text = found.text.replace(" ", "\\ ") if escaped else found.text
            yield Completion(text + ("/" if folder else quote), display=found.display)


def _beginning_with(typed: str, words: Iterable[str]) -> Iterator[Completion]:
    for word in words:
        if word.startswith(typed):
            yield Completion(word, start_position=-len(typed))


def _continuation(width: int, line_number: int, wrap_count: int) -> StyleAndTextTuples:
    return [(_STYLE, "" if wrap_count else MORE)]


def _text_follows(event: KeyPressEvent) -> bool:
    """Whether text came together with this Enter, behind it: then it was pasted.

    Terminals without bracketed paste send a paste as if it was typed, and so arrives what is pasted during an answer.
    """
    waiting = event.key_processor.input_queue
    if waiting:
        return any(press.key == Keys.BracketedPaste or press.data.isprintable() for press in waiting)
    with contextlib.suppress(OSError, ValueError):
        return bool(select.select([event.app.input.fileno()], [], [], 0)[0])
    return False


class _TerminalInput(Vt100Input):
    """Gives long runs of text as one key, and notices that the terminal is gone.

    Inserting 10,000 characters one by one takes seconds. Of a terminal that is gone nothing can be read, which
    prompt_toolkit takes for an interruption and tries again without end.
    """

    def read_keys(self) -> list[KeyPress]:
        keys: list[KeyPress] = []
        run: list[KeyPress] = []
        typed = super().read_keys()
        if not typed and _is_gone(self.fileno()):
            self.stdin_reader.closed = True
        for press in [*typed, None]:
            if press is not None and len(press.key) == 1 and press.data.isprintable():
                run.append(press)
                continue
            if len(run) >= _BURST and not is_dumb_terminal():
                run = [KeyPress(Keys.BracketedPaste, "".join(one.data for one in run))]
            keys += run
            run = []
            if press is not None:
                keys.append(press)
        return keys


def _is_gone(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, 0)  # a hang-up is told unasked
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))


def _output(shown_on: TextIO) -> Output:
    output = Vt100_Output.from_pty(shown_on, term=os.environ.get("TERM"))
    output.enable_cpr = False  # asking where the cursor is: its answer gets into what is typed next
    return output
