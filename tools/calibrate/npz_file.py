"""A recording as a .npz file: arrays, and what is said about them as JSON.

Owns the form of the file, which ``Recording`` and ``Glance`` share. It knows nothing of what they hold.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..atomic_file import scratch_file

Arrays = Mapping[str, npt.NDArray[np.float16]]


def save_npz(path: Path, about: Mapping[str, Any], arrays: Arrays) -> None:
    """Writes the file, whole or not at all."""
    with scratch_file(path) as scratch:
        with open(scratch, "wb") as file:
            np.savez(file, about=np.array(json.dumps(about)), **arrays)  # type: ignore[arg-type]
        os.replace(scratch, path)


def load_npz(path: Path, names: Iterable[str]) -> tuple[dict[str, Any], dict[str, npt.NDArray[np.float16]]]:
    """What ``save_npz`` wrote: the words, and the arrays of these names."""
    with np.load(path, allow_pickle=False) as file:
        about: dict[str, Any] = json.loads(str(file["about"]))
        return about, {name: file[name] for name in names}
