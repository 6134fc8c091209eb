"""Numbers and switches that users give: Python's own and NumPy's scalars, but no text and no arrays.

Owns the checks and the words in which a wrong number is refused.
"""

from __future__ import annotations

import numbers
import operator
from typing import Any, Optional


def as_integer(value: Any) -> Optional[int]:
    """The value as ``int`` where it is an integer of any type, else None."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def as_number(value: Any) -> Optional[float]:
    """The value as ``float`` where it is a real number of any type, else None."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def flag(name: str, value: Any) -> bool:
    """The value as ``bool``: True, False, 1 or 0 of any type, or None for False.

    Raises:
        TypeError: anything else, which would count as true though it may say the opposite.
    """
    is_numpys = getattr(getattr(value, "dtype", None), "kind", "") == "b" and getattr(value, "ndim", 1) == 0
    if value is not None and not (isinstance(value, bool) or is_numpys or as_integer(value) in (0, 1)):
        raise TypeError(f"{name} is {repr(value)[:60]}, expected True or False")
    return bool(value)


def integer(name: str, value: Any, least: int, most: int, also: str = "") -> int:
    """The value as ``int``.

    Args:
        name: the argument, for the message.
        value: what was given.
        least, most: the range.
        also: what else may be given, for the message.

    Raises:
        ValueError: anything else.
    """
    number = as_integer(value)
    if number is None or not least <= number <= most:
        raise ValueError(f"{name} is {value!r}, expected an integer in [{least}, {most}]{also}")
    return number
