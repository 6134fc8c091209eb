"""Answers on disk: one JSON line each, there for good once written, found again by the next run.

Owns the file and what makes two answers the same. Lines of other settings stay in the file and are kept apart: they
match no question of this run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

KEY_FIELDS = ("method_id", "setting_id", "task", "length", "index", "prompt_hash")

Record = dict[str, Any]
Key = tuple[Any, ...]


def key_of(record: Mapping[str, Any]) -> Key:
    """What an answer is the answer to."""
    return tuple(record[field] for field in KEY_FIELDS)


class AnswerFile:
    """The answers of one model in a folder.

    Args:
        folder: made when it is missing; None keeps the answers in memory only.
        identity: of the model; each has its own file.

    Raises:
        OSError: the folder or file cannot be used.
        ValueError: a line, not the last, is no answer.
    """

    def __init__(self, folder: Optional[Path], identity: str) -> None:
        self.path = None if folder is None else folder / f"{identity}.jsonl"
        self._known: dict[Key, Record] = {}
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._load(self.path)

    def find(self, key: Key) -> Optional[Record]:
        """The answer, if it is there."""
        return self._known.get(key)

    def add(self, record: Record) -> None:
        """Writes an answer; when this returns, it is in the file."""
        self._known[key_of(record)] = record
        if self.path is not None:
            line = json.dumps(record, ensure_ascii=False) + "\n"
            with open(self.path, "a", encoding="utf-8", errors="replace") as file:
                file.write(line)

    def _load(self, path: Path) -> None:
        if not path.exists():
            return
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):  # a run that was killed while it wrote
            with open(path, "r+b") as file:
                file.truncate(len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            record = _parse(line)
            if record is None:
                raise ValueError(
                    f"{path}: line {number} is no answer of lazygguf eval; give another --out, or remove it"
                )
            self._known[key_of(record)] = record


def _parse(line: bytes) -> Optional[Record]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or any(field not in record for field in KEY_FIELDS):
        return None
    return record
