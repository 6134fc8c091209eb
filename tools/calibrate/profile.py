"""A profile: a schedule with the measurements that chose it, as JSON, and inside a GGUF file.

Owns the form of both files. ``KeepSchedule.from_dict`` and ``ScoringProfile.from_dict`` read it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata

from lazygguf import __version__
from lazygguf.schedule.keep_schedule import PROFILE_KEY

from ..atomic_file import check_space, scratch_file
from ..eval.engine import Engine
from .recall import LayerRecall
from .trials import Trial, decode_way


def model_notes(engine: Engine) -> dict[str, Any]:
    """What the profile is for."""
    name = engine.shape.metadata.get("general.name", Path(engine.path).stem)
    return {"name": str(name), "fingerprint": engine.fingerprint}


def measured(trials: Sequence[Trial], layers: Sequence[LayerRecall]) -> dict[str, Any]:
    """What chose the schedule: the frontier, and what each layer sees."""
    frontier = [
        {
            "keep": None if trial.schedule is None else str(trial.schedule),
            "decode": decode_way(trial.schedule),
            "recall": trial.recall,
            **trial.figures.to_dict(),
        }
        for trial in sorted(trials, key=lambda trial: trial.figures.share)
    ]
    found = [
        {"il": at.il, "scorer": str(at.scorer), "needed": _figures(at.needed), "paper_needed": _figures(at.paper)}
        for at in layers
    ]
    return {"version": __version__, "frontier": frontier, "layers": found}


def _figures(shares: Any) -> dict[str, float]:
    return {"mean": round(float(shares.mean()), 3), "max": round(float(shares.max()), 3)}


def write_profile(path: Path, profile: Mapping[str, Any]) -> None:
    """Writes the JSON, whole or not at all."""
    with scratch_file(path) as scratch:
        scratch.write_text(json.dumps(profile, indent=1) + "\n", encoding="utf-8")
        os.replace(scratch, path)


def embed_profile(source: Path, target: Path, profile: Mapping[str, Any], key: str = PROFILE_KEY) -> None:
    """Copies a GGUF file and puts the profile into its metadata under a key, whole or not at all.

    Raises:
        OSError: there is no room, or a file cannot be read or written.
    """
    check_space(target.absolute().parent, source.stat().st_size)
    reader = gguf.GGUFReader(source)
    arch = reader.fields["general.architecture"].contents()
    with scratch_file(target) as scratch:
        writer = gguf.GGUFWriter(scratch, arch=str(arch), endianess=reader.endianess)
        writer.data_alignment = reader.alignment
        text = json.dumps(profile)
        copy_with_new_metadata(reader, writer, {key: MetadataDetails(gguf.GGUFValueType.STRING, text)}, [])
        os.replace(scratch, target)
