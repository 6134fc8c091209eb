"""Names that users give: reading lists of them, and refusing unknown ones with the nearest known name.

Owns the messages, so that Python arguments, profile keys and chat commands are refused in the same words.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence
from typing import Union


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
