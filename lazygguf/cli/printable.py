"""Text from a model or a file without the control characters that a terminal would obey.

Owns the table of the characters that are replaced before such text is shown.
"""

from __future__ import annotations

_UNSAFE = {code: "\ufffd" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if code not in (0x09, 0x0A)}


def printable(text: str) -> str:
    """The text with control characters, all but tab and line feed, as U+FFFD."""
    return text.translate(_UNSAFE)
