"""Passages of a text: whole lines and sentences, at most 60 words, chosen by numbers that its characters have.

Owns where a text may be cut, what a word is, and which passages are chosen. What the numbers mean is the caller's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MAX_WORDS = 60

Values = npt.NDArray[np.float64]  # (n_characters,)
Span = tuple[int, int]  # characters [begin, end)

# a Chinese or Japanese character counts as a word, and so does every 24 characters of a longer run, such as a link
_WORD = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff]|[^\s\u2e80-\u9fff\uf900-\ufaff]{1,24}")
# what closes a sentence belongs to it; a small letter behind it says that it is an abbreviation
_SENTENCE_END = re.compile(
    r"[.!?]+[\"'\u2019\u201d)\]]*(?=\s+[^\sa-z]|\s*\Z)|[\u3002\uff01\uff1f]+[\u300d\u300f\u201d]*"
)
_LINE = re.compile(r"[^\n]*\n|[^\n]+\Z")
_WRAPPED = 50  # characters of a line that may go on in the next one


@dataclass(frozen=True)
class Passage:
    """A part of a text.

    Attributes:
        start, end: its characters, [start, end); it neither begins nor ends with a space.
        peak: the highest value among its characters.
    """

    start: int
    end: int
    peak: float


class _Unit(NamedTuple):
    """The least that is shown: a line, a sentence, or 60 words of a longer one."""

    start: int
    end: int
    n_words: int
    paragraph: int


def n_words(text: str) -> int:
    """How many words a text has, as the limit of a passage counts them."""
    return sum(1 for _ in _WORD.finditer(text))


def lines_of(text: str, start: int, end: int) -> Span:
    """Numbers of the first and the last line of characters [start, end), which are not empty; from 1."""
    first = text.count("\n", 0, start) + 1
    return first, first + text.count("\n", start, end - 1)


def best_passages(text: str, values: Values, n: int, without: Sequence[Span] = ()) -> list[Passage]:
    """The passages that the highest values lie in, the best first; no two overlap.

    A passage begins with the line or sentence that holds the highest value, and takes its neighbours in the same
    paragraph, the better one first, while it has at most 60 words.

    Args:
        text: what they are taken from.
        values: (n_characters,) of its characters; 0 or less is never chosen.
        n: how many, at most.
        without: parts of the text that no passage touches.
    """
    units = _units(text, without)
    peaks = [float(values[unit.start : unit.end].max()) for unit in units]
    taken: set[int] = set()
    found: list[Passage] = []
    for at in sorted(range(len(units)), key=lambda i: -peaks[i]):
        if len(found) == n or peaks[at] <= 0:
            break
        if at in taken:
            continue
        first, last = _grown(units, peaks, taken, at)
        taken.update(range(first, last + 1))
        start, end = units[first].start, units[last].end
        found.append(Passage(start, end, peaks[at]))
    return found


def _grown(units: Sequence[_Unit], peaks: Sequence[float], taken: set[int], at: int) -> Span:
    """The units [first, last] of the passage that begins with one."""
    first = last = at
    n_all = units[at].n_words
    while True:
        beside = [
            i
            for i in (first - 1, last + 1)
            if 0 <= i < len(units)
            and i not in taken
            and units[i].paragraph == units[at].paragraph
            and n_all + units[i].n_words <= MAX_WORDS
        ]
        if not beside:
            return first, last
        better = max(beside, key=lambda i: peaks[i])
        first, last = min(first, better), max(last, better)
        n_all += units[better].n_words


# ---- where a text may be cut ---------------------------------------------------------------------------------------


def _units(text: str, without: Sequence[Span]) -> list[_Unit]:
    """All units, in order. A part that is left out parts paragraphs."""
    units: list[_Unit] = []
    paragraph = 0
    for begin, end in _between(without, len(text)):
        for start, stop in _paragraphs(text, begin, end):
            paragraph += 1
            for unit in _cut_long(text, _sentences(text, start, stop)):
                units.append(_Unit(*unit, n_words(text[slice(*unit)]), paragraph))
    return units


def _between(without: Sequence[Span], length: int) -> Iterator[Span]:
    """What is left of [0, length)."""
    end = 0
    for begin, behind in sorted(without):
        if begin > end:
            yield end, begin
        end = max(end, behind)
    if end < length:
        yield end, length


def _paragraphs(text: str, begin: int, end: int) -> Iterator[Span]:
    """Runs of lines that are not blank."""
    start = stop = begin
    for line in _LINE.finditer(text, begin, end):
        if line[0].strip():
            stop = line.end()
            continue
        if stop > start:
            yield start, stop
        start = stop = line.end()
    if stop > start:
        yield start, stop


def _sentences(text: str, begin: int, end: int) -> Iterator[Span]:
    """A paragraph's lines, cut where a sentence ends, and joined where one goes on in the next line."""
    start = begin
    for cut in _cuts(text, begin, end):
        yield from _stripped(text, start, cut)
        start = cut
    yield from _stripped(text, start, end)


def _cuts(text: str, begin: int, end: int) -> list[int]:
    cuts = {match.end() for match in _SENTENCE_END.finditer(text, begin, end)}
    lines = list(_LINE.finditer(text, begin, end))
    cuts.update(line.end() for line, after in zip(lines, lines[1:]) if not _goes_on(line[0], after[0]))
    return sorted(cuts)


def _goes_on(line: str, after: str) -> bool:
    """Whether a line is prose that was broken for its length, so that its sentence goes on in the next one."""
    line = line.rstrip()
    is_open = line[-1].isalnum() or line[-1] in ",-\u2010\u2014;'\u2019"
    return is_open and after[0].isalpha() and (len(line) >= _WRAPPED or after[0].islower()) and line.count(" ") >= 5


def _cut_long(text: str, spans: Iterator[Span]) -> Iterator[Span]:
    """Spans of more than 60 words in parts, at line ends where that is enough."""
    for begin, end in spans:
        if n_words(text[begin:end]) <= MAX_WORDS:
            yield begin, end
            continue
        for line in _LINE.finditer(text, begin, end):
            words = list(_WORD.finditer(text, line.start(), line.end()))
            for i in range(0, len(words), MAX_WORDS):
                part = words[i : i + MAX_WORDS]
                yield part[0].start(), part[-1].end()


def _stripped(text: str, begin: int, end: int) -> Iterator[Span]:
    """The span without spaces at its ends; nothing where that is all."""
    part = text[begin:end]
    bare = part.strip()
    if bare:
        start = begin + len(part) - len(part.lstrip())
        yield start, start + len(bare)
