"""What a chat template may take, counted while it is rendered.

Owns the limits, the count of one render, and the size of what an operator, a filter or a text's method would make,
which is known before it is made. Knows no syntax tree: ``bounded_template.py`` says what is asked when.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

from jinja2.exceptions import SecurityError
from jinja2.utils import Namespace

from .said_text import parts_of

# What a render may take. A long conversation may take more: each limit grows with the text that the template is given.
MAX_STEPS = 1_000_000  # loop rounds, calls, operators; 64 characters or elements that one of them handles are a step
MAX_OUTPUT = 1 << 20  # characters of the prompt
MAX_VALUE = 4 << 20  # characters and elements of one value, written out
MAX_MADE = 16 << 20  # characters and elements of all values that are made
MAX_SECONDS = 10.0  # of the thread's processor time
MAX_NUMBER = 10_000  # a width, a precision, a count that a filter or a text's method is given
MAX_GIVEN = 1 << 28  # characters of the conversation
MAX_BITS = 4096  # of a whole number
MAX_CHAIN = 20  # lazy filters (map, select) behind one another

_CLOCK_STEPS = 1024  # steps between two looks at the clock
_PER_STEP = 64

WIDTH_METHODS = frozenset(["center", "expandtabs", "ljust", "rjust", "zfill"])
_WIDE_FORMAT = re.compile(r"%[^a-zA-Z%]*(\*|\d{4})|\{[^{}]*(:[^{}]*\{|\d{4})")


class TemplateLimitError(SecurityError):
    """A template that takes more than it may, or calls what it may not."""


class Meter:
    """What one render has taken so far."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._max_value = MAX_GIVEN
        n_given = self.weigh(values)
        self._n_steps = 0
        self._n_made = 0
        self._max_steps = MAX_STEPS + n_given
        self._max_value = MAX_VALUE + 8 * n_given
        self._max_made = MAX_MADE + 64 * n_given
        self.max_output = MAX_OUTPUT + 8 * n_given
        self._look = _CLOCK_STEPS
        self._until = time.thread_time() + MAX_SECONDS

    def step(self, n: int = 1) -> None:
        self._n_steps += n
        if self._n_steps > self._max_steps:
            raise TemplateLimitError(f"it takes more than {self._max_steps} steps")
        if self._n_steps >= self._look:
            self._look = self._n_steps + _CLOCK_STEPS
            if time.thread_time() > self._until:
                raise TemplateLimitError(f"it takes more than {MAX_SECONDS:g} seconds")

    def handle(self, *values: Any) -> int:
        """Counts work that looks at all of some values; returns their size."""
        n = self.weigh(*values)
        self.step(1 + n // _PER_STEP)
        return n

    def make(self, n: int) -> None:
        """Counts a value of this size, before it is made where that can be told."""
        if n > self._max_value:
            raise TemplateLimitError(f"it makes a value of more than {self._max_value} characters or elements")
        self._n_made += n
        if self._n_made > self._max_made:
            raise TemplateLimitError(f"it makes more than {self._max_made} characters and elements")
        self.step(1 + n // _PER_STEP)

    def weigh(self, *values: Any) -> int:
        """Characters and elements, each as often as it would be written out: shared ones count again."""
        n, todo = 0, list(values)
        around: set[int] = set()  # the namespaces that the next value stands in
        while todo:
            value = todo.pop()
            if isinstance(value, _EndOf):
                around.remove(value.namespace)
            elif isinstance(value, str):
                n += 1 + len(value)
            elif isinstance(value, int):
                n += 1 + value.bit_length() // 3
            elif isinstance(value, range):
                n += 1 + len(value)
            else:
                if isinstance(value, Namespace):  # the only thing that a template can change, so that it holds itself
                    if id(value) in around:
                        raise TemplateLimitError("it handles a namespace that holds itself")
                    around.add(id(value))
                    todo.append(_EndOf(id(value)))
                parts = parts_of(value)
                n += 1 + len(parts)
                if n <= self._max_value:
                    todo.extend(parts)
            if n > self._max_value:
                raise TemplateLimitError(f"it handles a value of more than {self._max_value} characters or elements")
        return n


class _EndOf(NamedTuple):
    """Stands behind the parts of a namespace, by its ``id``."""

    namespace: int


METER: ContextVar[Meter] = ContextVar("lazygguf_template_meter")


def length(value: Any) -> int:
    """Characters or elements of a value itself."""
    return len(value) if isinstance(value, (str, list, tuple, dict)) else 1


def check_number(value: Any) -> None:
    """Raises ``TemplateLimitError`` for a width or count that is too large."""
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        raise TemplateLimitError(f"it uses a width or count of {_short(value)}, expected at most {MAX_NUMBER}")


def _short(value: int) -> str:
    return str(value) if value.bit_length() < 64 else f"2 ** {value.bit_length() - 1}"


def format_size(meter: Meter, pattern: str, mark: str, values: Any) -> int:
    """At most this many characters: each place may show all values."""
    if _WIDE_FORMAT.search(pattern):
        raise TemplateLimitError("it formats text with a width of 4 or more digits or one that is computed")
    return len(pattern) + pattern.count(mark) * (1000 + meter.weigh(values))


def _replace_size(text: str, old: str, new: str) -> int:
    return len(text) + (text.count(old) if old else len(text) + 1) * len(new)


def filter_size(meter: Meter, name: str, given: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """The size of what a filter makes at most, before it makes it."""
    size = meter.weigh(*given, kwargs)
    values = [*given[1:], *kwargs.values()]
    if name in ("map", "select", "reject", "default", "d", "int", "float", "format"):
        numbers: Iterable[Any] = ()
    else:
        numbers = values
    for value in numbers:
        check_number(value)
    text = given[0] if given else None
    if name == "format":
        return size + format_size(meter, str(text), "%", values)
    if name == "center":
        return size + MAX_NUMBER
    if name == "indent":
        width = given[1] if len(given) > 1 else kwargs.get("width", 4)
        return size + (str(text).count("\n") + 1) * (len(width) if isinstance(width, str) else int(width))
    if name == "join":
        between = given[1] if len(given) > 1 else kwargs.get("d", "")
        return size * (1 + len(str(between)))
    if name == "replace" and len(given) > 2:
        return size + _replace_size(str(text), str(given[1]), str(given[2]))
    if name == "sum" and not isinstance(given[2] if len(given) > 2 else kwargs.get("start", 0), (int, float)):
        raise TemplateLimitError("it sums what are no numbers")
    if name in ("slice", "batch"):
        return size + sum(abs(value) for value in values if isinstance(value, int))
    return size


def product_size(operator: str, left: Any, right: Any) -> int:
    """The size of what ``*`` and ``**`` make."""
    if isinstance(left, int) and isinstance(right, int):
        if operator == "*":
            bits = left.bit_length() + right.bit_length()
        else:
            bits = left.bit_length() * max(0, right)
        if bits > MAX_BITS and abs(left) > 1:
            raise TemplateLimitError(f"it computes a number of more than {MAX_BITS} bits")
        return 1
    n, many = (left, right) if isinstance(left, int) else (right, left)
    return length(many) * max(0, n) if isinstance(n, int) else 1


def method_size(meter: Meter, owner: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """The size of what a built-in method makes at most, before it makes it."""
    if not isinstance(owner, str):
        return length(owner) if name in ("copy", "count", "index") else 1
    size = 1 + len(owner) + meter.weigh(args, kwargs)
    if name in WIDTH_METHODS:
        for value in args:
            check_number(value)
        width = args[0] if args and isinstance(args[0], int) else 8
        return size + (owner.count("\t") if name == "expandtabs" else 1) * abs(width)
    if name == "join":
        return size * (1 + len(owner))
    if name == "replace" and len(args) > 1:
        return size + _replace_size(owner, str(args[0]), str(args[1]))
    if name in ("format", "format_map"):
        return size + format_size(meter, owner, "{", (args, kwargs))
    return size
