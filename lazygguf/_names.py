"""Names that users give: reading lists of them, and refusing unknown ones with the nearest known name.

Owns the messages, so that Python arguments, profile keys and chat commands are refused in the same words; and what
becomes of a path that no file can have.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Union


def refuse_unknown(given: Iterable[str], known: Collection[str], what: str) -> None:
    """Raises for the first of ``given`` that is not in ``known``.

    Args:
        given: names that came from outside.
        known: the names that exist.
        what: what kind of name it is, for the message.

    Raises:
        ValueError: the name, and the nearest known one.
    """
    for name in given:
        if name not in known:
            raise ValueError(f"unknown {what} {name!r}{nearest(str(name), known)}")


def nearest(name: str, known: Collection[str]) -> str:
    """``", did you mean 'x'?"``, or all known names where none is near."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else f", expected one of {', '.join(sorted(known))}"


def split_names(option: str, given: Union[str, Sequence[str]]) -> list[str]:
    """The names in a text with commas, or in a list, without blanks around them.

    Raises:
        TypeError: neither text nor a list of texts; ``option`` says whose value it is.
    """
    parts = given.split(",") if isinstance(given, str) else given
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
        raise TypeError(f"{option} is {given!r}, expected text, with commas for several, or a list of texts")
    return [part.strip() for part in parts]


def path_text(name: str, given: Any, also: str = "") -> str:
    """A path that a user gave, as text.

    Args:
        name: the argument, for the message.
        given: text or a ``pathlib.Path``.
        also: what else may be given, for the message.

    Raises:
        TypeError: neither text nor a path.
        ValueError: no file can have this path.
    """
    path = given.__fspath__() if isinstance(given, os.PathLike) else given
    if not isinstance(path, str):
        hint = "; os.fsdecode() makes text of a path in bytes" if isinstance(path, bytes) else ""
        raise TypeError(f"{name} is {repr(given)[:60]}, expected text or a pathlib.Path{also}{hint}")
    try:
        is_path = path != "" and "\0" not in os.fsdecode(os.fsencode(path))
    except UnicodeEncodeError:  # half of a character
        is_path = False
    if not is_path:
        raise ValueError(f"{name} is {path!r}, expected the path of a file{also}")
    return path


def is_same(given: Any, value: Any) -> bool:
    """Whether a value is the other one, or equal and no array, whose comparison would be one too."""
    return given is value or (isinstance(given, (bool, int, float, str, dict, list)) and bool(given == value))
