"""Reading profiles that are JSON."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str, what: str) -> Any:
    """The value of JSON text.

    Args:
        text: from outside, also nested too deeply.
        what: it is, for the message.

    Raises:
        TypeError: it is not text.
        ValueError: it is not JSON.
    """
    if not isinstance(text, str):
        raise TypeError(f"{what} is {repr(text)[:60]}, expected JSON as text")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is not JSON: {error}") from error
