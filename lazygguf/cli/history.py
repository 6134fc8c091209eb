"""The messages of earlier conversations, for the arrow keys and Ctrl-R.

Owns where the history file is, who may read it, and how large it grows. A file that cannot be used costs one note,
never a message.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Callable

from prompt_toolkit.history import FileHistory

_OWNER_ONLY = 0o600
_FOLDER = 0o700
_LONGEST = 10_000  # characters; longer messages are documents, which are kept for this conversation only
_LARGEST = 1 << 20  # bytes of the file from which the older half is dropped


def history_path() -> Path:
    """``$XDG_STATE_HOME/lazygguf/history``; the folder is ``~/.local/state`` where that is not set."""
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if os.path.isabs(state) else Path(os.path.expanduser("~"), ".local", "state")
    return base / "lazygguf" / "history"


class History(FileHistory):
    """The history file. Only its owner can read it.

    Args:
        path: the file; it and its folder are made when the first message is stored.
        complain: told once, in words, if the file cannot be used.
        keep: whether messages are stored.
    """

    def __init__(self, path: Path, complain: Callable[[str], None], keep: bool = True) -> None:
        super().__init__(str(path))
        self.keep = keep
        self._path = path
        self._complain = complain
        self._failed = False

    def load_history_strings(self) -> Iterable[str]:
        """The stored messages, newest first."""
        if not self.keep:
            return []
        try:
            self._shorten()
            return list(super().load_history_strings())
        except OSError as error:
            self._fail(error)
            return []

    def store_string(self, string: str) -> None:
        """Adds a message to the file."""
        if not self.keep or self._failed or len(string) > _LONGEST:
            return
        try:
            self._make_private()
            super().store_string(string)
        except OSError as error:
            self._fail(error)

    def _make_private(self) -> None:
        self._path.parent.mkdir(mode=_FOLDER, parents=True, exist_ok=True)
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _OWNER_ONLY)
        try:
            mode = os.fstat(fd).st_mode
            if stat.S_ISREG(mode) and mode & 0o077:  # not /dev/null, to which some link it
                os.fchmod(fd, _OWNER_ONLY)
        finally:
            os.close(fd)

    def _shorten(self) -> None:
        """Drops the older half of a file that has grown too large; entries begin with an empty line."""
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_size <= _LARGEST:
                return
            data = self._path.read_bytes()
            begin = data.find(b"\n\n# ", len(data) // 2)
            shorter = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
            fd = os.open(shorter, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _OWNER_ONLY)
            with open(fd, "wb") as file:
                file.write(data[begin + 1 :] if begin >= 0 else b"")
            os.replace(shorter, self._path)

    def _fail(self, error: OSError) -> None:
        if not self._failed:
            self._failed = True
            self._complain(f"{self._path}: {error.strerror or error}; messages are kept for this conversation only")
