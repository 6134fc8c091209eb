"""JSON files of a checkpoint folder, read with errors that name the file and the key."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, Optional

from lazygguf.errors import ModelFileError

# what the loader takes (native/model/hparams.cpp)
EPS_RANGE, THETA_RANGE, FACTOR_RANGE, ATTENTION_FACTOR_RANGE = (1e-12, 1.0), (1.0, 1e12), (1e-3, 1e6), (1e-3, 1e3)
MAX_JSON = 512 * 1024 * 1024  # bytes; the largest real one, a tokenizer.json, has about 20 MB

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # an escape that may be half of a pair


def read_text(path: Path) -> str:
    """A text file of a checkpoint, with or without a byte order mark.

    Raises:
        FileNotFoundError: There is no such file.
        ModelFileError: It is no UTF-8, or far too large.
    """
    if path.stat().st_size > MAX_JSON:
        raise ModelFileError(f"{path}: {path.stat().st_size} bytes are too many for a text file of a checkpoint")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{path}: no UTF-8 text: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        FileNotFoundError: There is no such file.
        ModelFileError: It is no JSON object.
    """
    text = read_text(path)
    try:
        value = json.loads(text)
        if _SURROGATE.search(text) is not None:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ModelFileError(f"{path}: holds half a character (a surrogate alone), which is no text") from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: no valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{path}: a JSON {type(value).__name__}, expected an object")
    return value


def optional_json(path: Path) -> dict[str, Any]:
    """As read_json, {} where the file does not exist."""
    return read_json(path) if path.is_file() else {}


def shown(value: Any) -> str:
    """A value of a file for a message: in one line, and not all of it where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "..."


class Config:
    """Typed access to the values of one JSON object."""

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self.path, self.values = path, values

    def has(self, key: str) -> bool:
        """Whether the key has a value; null counts as none."""
        return self.values.get(key) is not None

    def integer(self, key: str, default: Optional[int] = None) -> int:
        """A whole number of 32 bits: GGUF has no place for others."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not -(1 << 31) <= value < 1 << 31:
            raise ModelFileError(f"{self.path}: {key} is {self._shown(key)}, expected an integer")
        return value

    def number(
        self, key: str, default: Optional[float] = None, low: float = -math.inf, high: float = math.inf
    ) -> float:
        """A finite number in [low, high]."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or abs(value) == math.inf:
            raise ModelFileError(f"{self.path}: {key} is {self._shown(key)}, expected a number")
        if not low <= value <= high or abs(value) > 3e38:  # a float of 32 bits holds no more
            limits = f"in [{max(low, -3e38):g}, {min(high, 3e38):g}]"
            raise ModelFileError(f"{self.path}: {key} is {self._shown(key)}, expected a number {limits}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise ModelFileError(f"{self.path}: {key} is {self._shown(key)}, expected true or false")
        return value

    def _shown(self, key: str) -> str:
        return shown(self.values[key]) if key in self.values else "missing"
