"""Text that remembers which of its characters somebody said, and which a template wrote.

Messages go through a chat template as ``SaidText``. Whatever the template does with them, the characters of what it
writes are marked: said, or the template's own. Only texts of control tokens that are wholly its own are its markup.
Owns how the marks go through each operation that a template has; knows no tokens.

What joins, cuts, strips, splits, replaces, fills in or changes letters keeps the mark of each character. Of every
other operation that gives a text (``tojson``, ``indent``, ``center``, ``truncate`` and so on), the whole result counts
as said where anything that went into it was. So does a number that is written: whether a message holds it is not known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from typing import Any, Callable, Optional

from jinja2.utils import Namespace

MAX_NESTING = 100  # of lists and objects in a message
_OWN, _SAID, _ASKED = b"\0", b"\1", b"\2"
_WORD = re.compile(r"\w*")
_FIRST_PLACE = 0x100000  # private characters that stand for values in a format
_LAST_PLACE = 0x10FFFD


class SaidText(str):
    """A text with a mark for each character; what is no ``SaidText`` is the template's own."""

    _marks: bytes  # as many as characters; 0 is the template's own, 1 is said, 2 is said by the turn that asks

    def __new__(cls, text: str, marks: Optional[bytes] = None) -> SaidText:
        """All of it is said where there are no marks."""
        made = super().__new__(cls, str.__str__(text))
        made._marks = _SAID * len(text) if marks is None else marks
        return made

    def __str__(self) -> str:
        return self

    def __getitem__(self, key: Any) -> str:
        if isinstance(key, slice):
            return SaidText(super().__getitem__(key), self._marks[key])
        return SaidText(super().__getitem__(key), bytes([self._marks[key]]))

    def __iter__(self) -> Iterator[str]:
        return (SaidText(char, bytes([mark])) for char, mark in zip(super().__iter__(), self._marks))


def said(value: Any, depth: int = 0) -> Any:
    """A message's value with all its texts said.

    Raises:
        TypeError: it holds what is no text, number, list or dictionary.
        ValueError: it nests too deep.
    """
    if depth > MAX_NESTING:
        raise ValueError(f"messages nest deeper than {MAX_NESTING} levels")
    if isinstance(value, str):
        return SaidText(value)
    if isinstance(value, Mapping):
        return {said(key, depth + 1): said(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [said(part, depth + 1) for part in value]
    if value is not None and not isinstance(value, (bool, int, float)):
        raise TypeError(
            f"messages hold {repr(value)[:80]}, expected text, numbers, lists and dicts (an object's model_dump())"
        )
    return value


def said_turn(turn: Mapping[str, Any], asks: bool = False) -> dict[str, Any]:
    """A message with all its texts said.

    But for a role that is a word: it is the caller's name for a kind of turn, of which templates make markup, as in
    ``'<|' + role + '|>'``.

    Args:
        turn: the message; its content is text or None.
        asks: ``end_of_question`` looks for its content.
    """
    marked = dict(said(turn))
    if _WORD.fullmatch(turn["role"]):
        marked["role"] = str.__str__(turn["role"])
    if asks and isinstance(turn["content"], str):
        marked["content"] = SaidText(turn["content"], _ASKED * len(turn["content"]))
    return marked


def said_spans(text: str) -> list[tuple[int, int]]:
    """Characters [begin, end) of a rendered text that are said, in ascending order."""
    return [match.span() for match in re.finditer(rb"[^\0]+", _marks(text))]


def end_of_question(text: str) -> int:
    """Characters of a rendered text up to the end of what the turn that asks said; 0 where that cannot be told."""
    return _marks(text).rfind(_ASKED) + 1


def parts_of(value: Any) -> Sequence[Any]:
    """What a value that is no text shows when it is written, compared or hashed."""
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    if isinstance(value, Namespace):
        return list(getattr(value, "_Namespace__attrs", {}).items())
    if isinstance(value, (AbstractSet, ValuesView)):
        return list(value)
    return ()


def holds_said(*values: Any) -> bool:
    """Whether anything in these values is said. Iterators are not looked into: they count as said."""
    todo = list(values)
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            if _is_said(value):
                return True
        elif isinstance(value, Iterator):
            return True
        else:
            todo.extend(parts_of(value))
    return False


# ---- operations


def written(value: Any) -> str:
    """A value as a template writes it."""
    if isinstance(value, str):
        return value
    text = str(value)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return SaidText(text) if is_number or holds_said(value) else text


def joined(parts: Sequence[str]) -> str:
    """Texts behind one another."""
    text = "".join(parts)
    if not any(isinstance(part, SaidText) for part in parts):
        return text
    return SaidText(text, b"".join(map(_marks, parts)))


def repeated(text: str, n: int) -> str:
    """A text ``n`` times."""
    return SaidText(str.__mul__(text, n), _marks(text) * n) if isinstance(text, SaidText) else text * n


def between(separator: str, parts: Sequence[str]) -> str:
    """Texts with another one between each two."""
    found: list[str] = []
    for part in parts:
        found += [separator, part]
    return joined(found[1:])


def derived(result: Any, *sources: Any) -> Any:
    """The result of an operation that is not followed: all of it is said, where anything in its sources is."""
    if isinstance(result, SaidText):
        return result
    if isinstance(result, str):
        return SaidText(str(result)) if holds_said(*sources) else result
    if isinstance(result, (list, tuple)) and any(isinstance(part, str) for part in result):
        return type(result)(derived(part, *sources) for part in result)
    return result


def filled_in(pattern: Any, fill: Callable[[Any], Any], values: Any, result: Any) -> Any:
    """What a format gives: each value keeps its marks where it stands unchanged, else all of it is said.

    Args:
        pattern: the format; a said one gives a text that is said.
        fill: gives the format's result for other values.
        values: what is filled in: a value, or tuples, lists and dictionaries of values.
        result: what ``fill(values)`` gave.
    """
    places: list[str] = []
    replaced = _with_places(values, places)
    if not isinstance(result, str) or not holds_said(pattern, values, places):
        return result
    if holds_said(pattern, replaced) or any(_FIRST_PLACE <= ord(char) <= _LAST_PLACE for char in result):
        return SaidText(result)
    try:
        text = str(fill(replaced))
    except Exception:  # a format such as "%d" that takes no text
        return SaidText(result)
    made = joined([places[ord(c) - _FIRST_PLACE] if _FIRST_PLACE <= ord(c) <= _LAST_PLACE else c for c in text])
    return made if made == result else SaidText(result)


def method_result(owner: str, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Any:
    """What a text's method gives, with marks.

    Args:
        owner: the text.
        name: the method, not ``format`` or ``format_map`` (see ``filled_in``).
        args, kwargs: what it was given.
        result: what it gave without marks.
    """
    if not isinstance(result, (str, list, tuple)) or not holds_said(owner, *args, *kwargs.values()):
        return result
    rule = _RULES.get(name) if not kwargs else None
    found = rule(owner, args, result) if rule is not None else None
    return found if found == result else derived(result, owner, *args, *kwargs.values())


Rule = Callable[[str, Sequence[Any], Any], Any]


def _marks(text: str) -> bytes:
    return text._marks if isinstance(text, SaidText) else _OWN * len(text)


def _is_said(text: str) -> bool:
    return isinstance(text, SaidText) and text._marks.count(_OWN) < len(text)


def _cut(text: str, begin: int, n: int) -> str:
    return text[begin : begin + n]


def _lstripped(text: str, given: Sequence[Any], result: str) -> str:
    return _cut(text, len(text) - len(str.lstrip(text, *given)), len(result))


def _begin(text: str, given: Sequence[Any], result: str) -> str:
    return _cut(text, 0, len(result))


def _end(text: str, given: Sequence[Any], result: str) -> str:
    return _cut(text, len(text) - len(result), len(result))


def _letters(text: str, given: Sequence[Any], result: str) -> Optional[str]:
    return SaidText(result, _marks(text)) if len(result) == len(text) else None


def _split(text: str, given: Sequence[Any], result: Sequence[str]) -> list[str]:
    if given and isinstance(given[0], str):
        return _pieces(text, result, len(given[0]))
    found, end = [], 0
    for part in result:
        begin = text.find(part, end)
        end = begin + len(part)
        found.append(text[begin:end])
    return found


def _pieces(text: str, parts: Sequence[str], n_between: int) -> list[str]:
    found, begin = [], 0
    for part in parts:
        found.append(_cut(text, begin, len(part)))
        begin += len(part) + n_between
    return found


def _partition(text: str, given: Sequence[Any], result: Sequence[str]) -> tuple[str, ...]:
    return tuple(_pieces(text, result, 0))


def _replaced(text: str, given: Sequence[Any], result: str) -> Optional[str]:
    old, new, *count = given
    if not old:
        return None
    return between(new, _pieces(text, str.split(text, old, *count), len(old)))


def _joined(separator: str, given: Sequence[Any], result: str) -> str:
    return between(separator, list(given[0]))


_RULES: dict[str, Rule] = {
    **dict.fromkeys(("strip", "lstrip"), _lstripped),
    **dict.fromkeys(("rstrip", "removesuffix"), _begin),
    "removeprefix": _end,
    **dict.fromkeys(("lower", "upper", "capitalize", "title", "swapcase", "casefold"), _letters),
    **dict.fromkeys(("split", "rsplit", "splitlines"), _split),
    **dict.fromkeys(("partition", "rpartition"), _partition),
    "replace": _replaced,
    "join": _joined,
}


def _with_places(value: Any, places: list[str]) -> Any:
    """The values with a character in the place of each text and number, which ``places`` then has."""
    if isinstance(value, tuple):
        return tuple(_with_places(part, places) for part in value)
    if isinstance(value, list):
        return [_with_places(part, places) for part in value]
    if isinstance(value, dict):
        return {key: _with_places(part, places) for key, part in value.items()}
    if isinstance(value, str) or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        if _FIRST_PLACE + len(places) > _LAST_PLACE:
            return value
        places.append(written(value))
        return chr(_FIRST_PLACE + len(places) - 1)
    return value
