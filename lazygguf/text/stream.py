"""From token bytes to text, piece by piece: characters that span tokens, and stop strings that span pieces.

However the bytes are cut, the joined pieces are the same text. It knows nothing of tokens, models or llama.cpp.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from typing import Union

MAX_STOPS = 128
MAX_STOP_CHARS = 1024


class TextStream:
    """Decodes UTF-8 incrementally and ends at the first stop string.

    Bytes of an unfinished character are held back until it is whole; bytes that can never become one turn
    into U+FFFD. Text that may be the beginning of a stop string is held back until that is decided. The stop
    string that is complete first ends the text (of two that end together the one that begins earlier), and is
    not part of it.

    Attributes:
        stopped: a stop string was found; everything after it is dropped.
        n_certain: characters that were returned so far.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self.stopped = False
        self.n_certain = 0
        self._stops = list(stops)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def feed(self, data: bytes) -> str:
        """Takes the next bytes and returns the text that is now certain, possibly none."""
        text = self._release(self._decoder.decode(data))
        self.n_certain += len(text)
        return text

    def offset_of(self, data: bytes) -> int:
        """Characters before these bytes, which come next; before the character where they lie inside one."""
        n_before = self.n_certain + len(self._held)
        unfinished = self._decoder.getstate()[0]
        return n_before + len((unfinished + data[:1]).decode("utf-8", "replace")) - 1 if data else n_before

    def finish(self) -> str:
        """Ends the text: an unfinished character becomes U+FFFD, and what was held back is returned."""
        text = self._release(self._decoder.decode(b"", final=True)) + self._held
        self._held = ""
        self.n_certain += len(text)
        return text

    def _release(self, text: str) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        cut = find_stop(text, self._stops)
        if cut is not None:
            self.stopped = True
            self._held = ""
            return text[:cut]
        n_held = _unfinished(text, self._stops)
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]


def find_stop(text: str, stops: Sequence[str]) -> Union[int, None]:
    """Where to cut the text: at the begin of the stop string that is complete first; None without one."""
    found = [(begin + len(stop), begin) for stop, begin in ((stop, text.find(stop)) for stop in stops) if begin >= 0]
    return min(found)[1] if found else None


def check_stops(stop: Union[str, Sequence[str], None]) -> list[str]:
    """The stop strings as a list.

    Args:
        stop: one string, several, or None. An empty one says nothing and is left out.

    Raises:
        ValueError: an overlong string, or too many of them.
        TypeError: something that is not a string.
    """
    if stop is not None and (isinstance(stop, (bytes, bytearray)) or not isinstance(stop, Iterable)):
        raise TypeError(f"stop is {stop!r}, expected text or a list of texts")
    stops = [] if stop is None else [stop] if isinstance(stop, str) else list(stop)
    if len(stops) > MAX_STOPS:
        raise ValueError(f"stop holds {len(stops)} strings, expected at most {MAX_STOPS}")
    for text in stops:
        if not isinstance(text, str):
            raise TypeError(f"stop holds {text!r}, expected text")
        if len(text) > MAX_STOP_CHARS:
            raise ValueError(f"stop string has {len(text)} characters, expected at most {MAX_STOP_CHARS}")
    return [text for text in stops if text]


def _unfinished(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of the text that is the beginning of a stop string."""
    most = min(len(text), max((len(stop) for stop in stops), default=1) - 1)
    for n in range(most, 0, -1):
        end = text[-n:]
        if any(len(stop) > n and stop.startswith(end) for stop in stops):
            return n
    return 0
