"""The documents before a question, and which file and line a part of a user turn comes from.

Owns how documents and a question become one turn, and the record of what stands where in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

from ..read.sources import Source


class FileLines(NamedTuple):
    """Where a file stands in a text.

    Attributes:
        name: its path; ``"-"`` is stdin.
        begin: characters of the text before it.
        end: characters of the text up to its end.
        skipped: lines at its begin that the text does not have.
    """

    name: str
    begin: int
    end: int
    skipped: int = 0


class Place(NamedTuple):
    """Lines of a file, counted from 1."""

    name: str
    first_line: int
    last_line: int


class FoundSource(NamedTuple):
    """A passage that an answer leaned on.

    Attributes:
        source: the passage, in the message that holds it.
        place: its lines in a file; None where it stands in none.
        turn: number of the user's turn that holds it, from 1.
    """

    source: Source
    place: Optional[Place]
    turn: int

    def to_dict(self) -> dict[str, Any]:
        """The form that ``--json`` prints: lines of the file, or of the turn where it stands in no file."""
        lines = self.place or self.source
        return {
            "file": None if self.place is None else self.place.name,
            "turn": self.turn,
            "first_line": lines.first_line,
            "last_line": lines.last_line,
            "score": self.source.score,
            "text": self.source.text,
        }


@dataclass(frozen=True)
class Document:
    """A text, and the files that it is made of.

    Attributes:
        text: the text.
        files: in its order.
    """

    text: str = ""
    files: tuple[FileLines, ...] = ()

    @classmethod
    def of_file(cls, name: str, text: str) -> Document:
        """A file's text."""
        return cls(text, (FileLines(name, 0, len(text)),))

    def then(self, other: Document) -> Document:
        """This document, a blank line, the other one."""
        begin = len(self.text) + 2
        moved = (part._replace(begin=part.begin + begin, end=part.end + begin) for part in other.files)
        return Document(f"{self.text}\n\n{other.text}", (*self.files, *moved))

    def joined(self, other: Document) -> Document:
        """The same without empty lines at both ends of each; a document without text adds nothing."""
        parts = [part.stripped() for part in (self, other) if part.text.strip()]
        return parts[0].then(parts[1]) if len(parts) == 2 else parts[0] if parts else Document()

    def asked(self, question: str) -> Document:
        """The user turn that asks something about it."""
        return self.joined(Document(question))

    def stripped(self) -> Document:
        """The document without empty lines at its ends."""
        n_cut = len(self.text) - len(self.text.lstrip("\n"))
        text = self.text.strip("\n")
        return Document(text, tuple(_cut(part, n_cut, len(text)) for part in self.files))

    def place(self, start: int, end: int) -> Optional[Place]:
        """Where characters [start, end) of the text stand in a file; None where they stand in none."""
        for part in self.files:
            if part.begin <= start and end <= part.end:
                first = self.text.count("\n", part.begin, start) + part.skipped + 1
                return Place(part.name, first, first + self.text.count("\n", start, max(start, end - 1)))
        return None


def _cut(part: FileLines, n_cut: int, n_left: int) -> FileLines:
    """A file in a text whose first ``n_cut`` characters, all line ends, are gone, and that has ``n_left`` left."""
    lost = min(max(0, n_cut - part.begin), part.end - part.begin)
    begin, end = (min(max(0, place - n_cut), n_left) for place in (part.begin, part.end))
    return part._replace(begin=begin, end=end, skipped=part.skipped + lost)


NO_DOCUMENT = Document()
