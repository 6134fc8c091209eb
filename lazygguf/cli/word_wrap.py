"""An answer on a terminal, with its lines broken between words.

Owns the column that the cursor is in. A terminal breaks a line where it is full, in the middle of a word.
"""

from __future__ import annotations

from typing import Callable

from rich.cells import cell_len

_TAB = 8
_ERASE = "\x1b[{}D\x1b[K"  # so many columns back, and from there to the line's end


class WordWrap:
    """Writes text as it comes. A word that does not fit is taken back and begins the next line.

    Args:
        write: writes to the terminal.
        width: the terminal's columns at this moment.
    """

    def __init__(self, write: Callable[[str], None], width: Callable[[], int]) -> None:
        self._write = write
        self._width = width
        self._column = 0
        self._word = ""  # the part of the current word that is written
        self._word_width = 0

    def write(self, text: str) -> None:
        """A part of the text, at once."""
        width = self._width()
        self._write("".join(self._place(character, width) for character in text))

    def end(self) -> None:
        """Ends the last line."""
        self.write("\n")

    def _place(self, character: str, width: int) -> str:
        if character == "\n":
            self._column = 0
            self._end_word()
            return "\n"
        if character in " \t":
            return self._place_blank(character, width)
        n_columns = cell_len(character)
        moved = self._make_room(n_columns, width)
        self._column += n_columns
        if n_columns > 1:  # between ideographs a line may be broken
            self._end_word()
        else:
            self._word += character
            self._word_width += n_columns
        return moved + character

    def _place_blank(self, character: str, width: int) -> str:
        if self._word_width >= width:  # the terminal has broken this word
            self._column %= width
        self._end_word()
        n_columns = 1 if character == " " else _TAB - self._column % _TAB
        if self._column + n_columns >= width:
            self._column = 0
            return "\n"
        self._column += n_columns
        return character

    def _make_room(self, n_columns: int, width: int) -> str:
        """What to write before a character. The last column stays free: behind it the cursor's place is unclear."""
        if self._column + n_columns < width or self._word_width == self._column > 0:
            return ""  # a word longer than a line is left to the terminal: a link stays one there
        moved = f"{_ERASE.format(self._word_width)}\n{self._word}" if self._word else "\n"
        self._column = self._word_width
        return moved

    def _end_word(self) -> None:
        self._word = ""
        self._word_width = 0
