"""What a person types, as text: what a message says, and which messages are commands.

Owns triple quotes, and telling a command from a question that begins with a path. It knows nothing of terminals.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Collection
from typing import NamedTuple, Optional

from .._names import nearest

QUOTES = '"""'
_WORD = re.compile(r"/([A-Za-z]+|\?)$")
_NEAR = 0.75  # likeness (difflib's ratio) from which a word is a mistyped command, also where more words follow


class Message(NamedTuple):
    """A message: its text, and whether it stood between triple quotes, where nothing is a command."""

    text: str
    quoted: bool


def quotes_are_open(typed: str) -> bool:
    """Whether the message began with triple quotes that are not closed yet.

    What was pasted between them may hold some itself, in pairs.
    """
    return typed.lstrip().startswith(QUOTES) and typed.count(QUOTES) % 2 == 1


def message_of(typed: str) -> Message:
    """What was typed, without the quotes around it. What stands behind the closing ones belongs to the message."""
    if not typed.lstrip().startswith(QUOTES):
        return Message(typed, False)
    _, _, inside = typed.partition(QUOTES)
    before, closed, behind = inside.rpartition(QUOTES)
    return Message((before + behind if closed else inside).strip("\n"), True)


class CommandLine(NamedTuple):
    """A command, what stands behind it in its line, and the lines behind that one."""

    name: str
    rest: str
    more: str


def command_of(text: str, known: Collection[str]) -> Optional[CommandLine]:
    """The command that a message is, None for a question, also for one that begins with a path.

    Args:
        text: the message.
        known: the commands' names.

    Raises:
        ValueError: the message is a single word that looks like a command and is none, or its first word is
            nearly one.
    """
    line, _, more = text.strip().partition("\n")
    word, _, rest = line.partition(" ")
    matched = _WORD.match(word)
    if matched is None:
        return None
    name = matched[1]
    if name in known:
        return CommandLine(name, rest.strip(), more)
    alone = not rest.strip() and not more.strip()
    if alone or difflib.get_close_matches(name, known, n=1, cutoff=_NEAR):
        raise ValueError(
            f"unknown command /{name}{nearest(name, known)} ({QUOTES} before and behind a message asks it as it is)"
        )
    return None


def path_of(rest: str) -> str:
    """The file that stands behind a command: as it is, in quotes, or with backslashes as a shell writes them.

    A path with spaces needs no quotes. What exists as it is typed is taken so.
    """
    plain = os.path.expanduser(rest)
    if os.path.exists(plain):
        return plain
    try:
        words = shlex.split(rest)
    except ValueError:  # a quote that is not closed
        return plain
    return os.path.expanduser(words[0]) if len(words) == 1 else plain
