"""A model file without its weights: metadata, size, fingerprint, and the profiles that ship for the model.

Owns the fingerprint of a model, which all its quantizations share, and the folder ``profiles``: keep profiles, and in
its folder ``scoring`` how models score as drafts. Both are made with ``lazygguf calibrate``. A shipped profile is found
by the fingerprint, not by the file's name.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Optional, Union

from .._ffi import NativeFile, TensorInfo

FOLDER = Path(__file__).resolve().parent.parent / "profiles"
# This tensor is F32 in every quantization and differs between models; AWQ changes other norms but not this one.
_HASHED = "output_norm.weight"
_SAMPLE_BYTES = 256
_SAMPLED = (0.0, 0.37, 0.71)  # where in a tensor, as shares of it
_LAYER = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True)
class ModelSize:
    """Parameters of a model.

    Attributes:
        n_params: all of them; a matrix that is embedding and output both counts once, as the file has it once.
        by_layer: those of each layer's tensors: what reading one token takes.
    """

    n_params: int
    by_layer: tuple[int, ...]

    def work(self, n_layer: Optional[int] = None) -> int:
        """Parameters that a token meets in the first ``n_layer`` layers, in all for None."""
        return sum(self.by_layer[:n_layer])

    @classmethod
    def of(cls, tensors: Iterable[TensorInfo]) -> ModelSize:
        """The size of a model with these tensors."""
        n_params, by_layer = 0, dict[int, int]()
        for tensor in tensors:
            n = math.prod(tensor.ne)
            n_params += n
            match = _LAYER.match(tensor.name)
            if match:
                by_layer[int(match[1])] = by_layer.get(int(match[1]), 0) + n
        return cls(n_params, tuple(by_layer[il] for il in sorted(by_layer)))


@dataclass(frozen=True)
class ModelFile:
    """A checked model file.

    Attributes:
        path: where it is.
        metadata: its key-value pairs.
        size: of the model in it.
        fingerprint: see ``fingerprint``.
        windowed: layers whose tokens see a window of the context only.
        tensors: what it says about each tensor.
        absolute: the path from the root.
    """

    path: str
    metadata: dict[str, Any]
    size: ModelSize
    fingerprint: Optional[str]
    windowed: frozenset[int] = frozenset()
    tensors: tuple[TensorInfo, ...] = ()
    absolute: str = ""

    @cached_property
    def weights_id(self) -> str:
        """What identifies the weights, this quantization of them: 32 hex digits.

        It is made from the hyper-parameters, what the file says about each tensor, and some bytes of each: another
        model or another quantization has other ones. Reading all bytes would take as long as opening the model.
        """
        arch = str(self.metadata.get("general.architecture"))
        known = {key: value for key, value in self.metadata.items() if key.startswith(f"{arch}.")}
        digest = hashlib.sha256(json.dumps([arch, known], sort_keys=True, default=str).encode())
        with open(self.absolute, "rb", buffering=0) as data:
            for tensor in self.tensors:
                digest.update(repr((tensor.name, tensor.type_name, tuple(tensor.ne), tensor.n_bytes)).encode())
                for share in _SAMPLED:
                    data.seek(tensor.offset + int(share * max(tensor.n_bytes - _SAMPLE_BYTES, 0)))
                    digest.update(data.read(min(_SAMPLE_BYTES, tensor.n_bytes)))
        return digest.hexdigest()[:32]

    @property
    def shipped(self) -> Optional[dict[str, Any]]:
        """The keep profile that ships for this model."""
        return shipped_profile(self.fingerprint)

    @property
    def shipped_scoring(self) -> Optional[dict[str, Any]]:
        """The scoring profile that ships for this model as a draft."""
        return shipped_scoring(self.fingerprint)

    def hparam(self, name: str) -> int:
        """A number of the model's architecture, such as ``"block_count"``."""
        return int(self.metadata[f"{self.metadata['general.architecture']}.{name}"])

    @classmethod
    def read(cls, path: Union[str, os.PathLike[str]]) -> ModelFile:
        """Reads and checks a file, no weights.

        Raises:
            OSError, ModelFileError, UnsupportedModelError: as ``LazyModel``.
        """
        with NativeFile(path) as file:
            file.check()
            tensors = tuple(file.tensors)
            size, windowed, absolute = ModelSize.of(tensors), windowed_layers(file), os.path.abspath(path)
            return cls(os.fspath(path), file.metadata, size, fingerprint(path, file), windowed, tensors, absolute)


def windowed_layers(file: NativeFile) -> frozenset[int]:
    """Layers whose tokens see a window of the context only: they cannot score what lies before it."""
    return frozenset(il for il, n_window in enumerate(file.windows()) if n_window > 0)


def fingerprint(path: Union[str, os.PathLike[str]], file: NativeFile) -> Optional[str]:
    """What identifies a model, whatever its quantization: 16 hex digits.

    Args:
        path: of the file.
        file: the same, opened.

    Returns:
        None where the file has no F32 tensor of the last norm, from which it is made.
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
