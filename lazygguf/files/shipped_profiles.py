"""The profiles that ship with the package, found by what a model is and not by what its file is called.

Owns the fingerprint of a model, which all quantizations of it share, and the folder ``profiles``: keep profiles, and in
its folder ``scoring`` how models score as drafts. Both are made with ``lazygguf calibrate``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Optional, Union

from .._ffi import NativeFile

FOLDER = Path(__file__).resolve().parent.parent / "profiles"
# F32 in every quantization and different in every training; the norms of layers are scaled by AWQ, this one is not
_HASHED = "output_norm.weight"


def fingerprint(path: Union[str, Path], file: NativeFile) -> Optional[str]:
    """What identifies a model, whatever its quantization: 16 hex digits.

    Args:
        path: of the file.
        file: the same, opened.

    Returns:
        None where its last norm is not there as F32, so that nothing can be told.
    """
    norm = next((info for info in file.tensors if info.name == _HASHED and info.type_name == "F32"), None)
    if norm is None:
        return None
    digest = hashlib.sha256(str(file.metadata.get("general.architecture")).encode())
    with open(path, "rb") as data:
        data.seek(norm.offset)
        digest.update(data.read(norm.n_bytes))
    return digest.hexdigest()[:16]


def shipped_profile(of: Optional[str]) -> Optional[dict[str, Any]]:
    """The keep profile of the model with this fingerprint, None where none ships."""
    return _profile_in(FOLDER, of)


def shipped_scoring(of: Optional[str]) -> Optional[dict[str, Any]]:
    """How the model with this fingerprint scores as a draft, None where none ships."""
    return _profile_in(FOLDER / "scoring", of)


def _profile_in(folder: Path, of: Optional[str]) -> Optional[dict[str, Any]]:
    for path in sorted(folder.glob("*.json")):
        profile: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if of is not None and profile["model"]["fingerprint"] == of:
            return profile
    return None
