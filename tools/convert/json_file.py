"""JSON files of a checkpoint folder, read with errors that name the file and the key."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Optional

from lazygguf.errors import ModelFileError

MAX_JSON = 512 * 1024 * 1024  # bytes; the largest real one, a tokenizer.json, has about 20 MB


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        FileNotFoundError: There is no such file.
        ModelFileError: It is no JSON object.
    """
    if path.stat().st_size > MAX_JSON:
        raise ModelFileError(f"{path}: {path.stat().st_size} bytes are too many for a JSON file of a checkpoint")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: no valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{path}: a JSON {type(value).__name__}, expected an object")
    return value


def optional_json(path: Path) -> dict[str, Any]:
    """As read_json, {} where the file does not exist."""
    return read_json(path) if path.is_file() else {}


class Config:
    """Typed access to the values of one JSON object."""

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self.path, self.values = path, values

    def has(self, key: str) -> bool:
        """Whether the key has a value; null counts as none."""
        return self.values.get(key) is not None

    def integer(self, key: str, default: Optional[int] = None) -> int:
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ModelFileError(f"{self.path}: {key} is {self._shown(key)}, expected an integer")
        return value

    def number(self, key: str, default: Optional[float] = None) -> float:
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            raise ModelFileError(f"{self.path}: {key} is {self._shown(key)}, expected a number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise ModelFileError(f"{self.path}: {key} is {self._shown(key)}, expected true or false")
        return value

    def _shown(self, key: str) -> str:
        return repr(self.values[key]) if key in self.values else "missing"
