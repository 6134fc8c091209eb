"""The weight files of a Hugging Face folder: which files there are, and every tensor in them by name.

Owns the index, the shard names and their checks. File contents are read by safetensors_file and
pickle_tensors.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Callable

from lazygguf.errors import ModelFileError

from .checkpoint import Source
from .json_file import read_json, shown
from .tensors.pickle_tensors import open_torch
from .tensors.safetensors_file import open_safetensors

# (prefix, suffix, index, reader), the preferred form first
FORMS: tuple[tuple[str, str, str, Callable[[Path], dict[str, Source]]], ...] = (
    ("model", ".safetensors", "model.safetensors.index.json", open_safetensors),
    ("pytorch_model", ".bin", "pytorch_model.bin.index.json", open_torch),
)


def has_weights(folder: Path) -> bool:
    """Whether the folder holds weights in one of the two forms."""
    return any((folder / index).is_file() or _parts(folder, prefix, suffix) for prefix, suffix, index, _ in FORMS)


def read_weights(folder: Path) -> dict[str, Source]:
    """Every tensor of the folder by name.

    Raises:
        ModelFileError: No weights, a missing shard, or an index that does not fit the files.
    """
    for prefix, suffix, index_name, read in FORMS:
        index_path = folder / index_name
        parts = _parts(folder, prefix, suffix)
        if not parts and not index_path.is_file():
            continue
        whole = f"{prefix}{suffix}"
        if whole in parts:  # as transformers: an index beside the whole file is of another time
            parts, index_path = [whole], folder / "none"
        weight_map = _weight_map(index_path) if index_path.is_file() else None
        if weight_map is not None:
            parts = sorted(set(weight_map.values()))
        _check_present(folder, parts)
        tensors, homes = _read_parts(folder, parts, read)
        if weight_map is not None:
            _check_index(index_path, weight_map, homes)
        return tensors
    raise ModelFileError(f"{folder}: no model*.safetensors and no pytorch_model*.bin in it")


def _parts(folder: Path, prefix: str, suffix: str) -> list[str]:
    """Names such as model.safetensors and model-00001-of-00002.safetensors, nothing that only starts so."""
    pattern = re.compile(re.escape(prefix) + r"(-\d+-of-\d+)?" + re.escape(suffix))
    return sorted(path.name for path in folder.iterdir() if pattern.fullmatch(path.name))


def _weight_map(path: Path) -> dict[str, str]:
    """The index's table of tensor name -> file name, all of them plain names in the same folder."""
    table = read_json(path).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise ModelFileError(f"{path}: no weight_map in the index")
    for name, part in table.items():
        if not isinstance(part, str) or Path(part).name != part or part in ("", ".", ".."):
            raise ModelFileError(
                f"{path}: the index puts {shown(name)} into {shown(part)}, which is no file of this folder"
            )
    return table


def _check_present(folder: Path, parts: list[str]) -> None:
    """Every part is there, and a part named -of-N is one of N."""
    wanted = set(parts)
    for part in parts:
        match = re.fullmatch(r"(.+)-(\d+)-of-(\d+)(\.\w+)", part)
        if match and int(match[3]) <= 9999:
            stem, width, n_parts, suffix = match[1], len(match[2]), int(match[3]), match[4]
            wanted |= {f"{stem}-{i:0{width}d}-of-{match[3]}{suffix}" for i in range(1, n_parts + 1)}
    missing = sorted(part for part in wanted if not (folder / part).is_file())
    if missing:
        names = ", ".join(shown(name)[1:-1] for name in missing[:8])  # they come from a file
        raise ModelFileError(f"{folder}: {len(missing)} of {len(wanted)} weight files missing: {names}")


def _read_parts(
    folder: Path, parts: list[str], read: Callable[[Path], dict[str, Source]]
) -> tuple[dict[str, Source], dict[str, str]]:
    tensors: dict[str, Source] = {}
    homes: dict[str, str] = {}
    for part in parts:
        for name, source in read(folder / part).items():
            if name in homes:
                raise ModelFileError(f"{folder}: the tensor {shown(name)} is in {homes[name]} and in {part}")
            tensors[name], homes[name] = source, part
    return tensors, homes


def _check_index(path: Path, weight_map: dict[str, str], homes: dict[str, str]) -> None:
    """The index and the files name the same tensors in the same places."""
    missing = sorted(name for name in weight_map if name not in homes)
    if missing:
        raise ModelFileError(
            f"{path}: {len(missing)} tensors of the index are in no file, such as {shown(missing[0])} "
            f"(expected in {weight_map[missing[0]]}); the download is not whole"
        )
    extra = sorted(name for name in homes if name not in weight_map)
    if extra:
        raise ModelFileError(f"{path}: {homes[extra[0]]} holds {shown(extra[0])}, which the index does not name")
    moved = sorted(name for name, part in weight_map.items() if homes[name] != part)
    if moved:
        raise ModelFileError(f"{path}: {moved[0]!r} is in {homes[moved[0]]}, the index says {weight_map[moved[0]]}")
