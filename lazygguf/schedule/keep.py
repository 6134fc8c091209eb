"""The ``keep`` argument: "auto", "off", a spelling, a profile's file or a schedule.

Owns how the argument becomes a schedule that fits a model, and which profile has precedence.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional, Union

from .._names import path_text
from ..errors import ModelFileError
from .keep_schedule import INT32_MAX, PROFILE_KEY, KeepSchedule, is_integer

KeepArgument = Union[str, KeepSchedule]


def resolve_keep(
    keep: KeepArgument,
    *,
    n_layer: int,
    n_head: int,
    metadata: Mapping[str, Any],
    shipped: Optional[Mapping[str, Any]] = None,
    max_revive: Optional[int] = None,
    has_draft: bool = False,
    windowed: Collection[int] = (),
) -> Optional[KeepSchedule]:
    """Turns the ``keep`` argument into a schedule that fits the model.

    Args:
        keep: ``"auto"`` (the profile in the model's metadata; with a draft ``KeepSchedule.drafted``; else the shipped
            profile, else ``KeepSchedule.auto``), ``"off"`` (dense), a spelling, the path of a profile (it ends in
            ``.json``), or a ``KeepSchedule``.
        n_layer: layers of the model.
        n_head: attention heads of the model.
        metadata: the model's GGUF metadata.
        shipped: the profile that ships for this model (``ModelFile.shipped``), None where there is none.
        max_revive: overrides the schedule's own; None keeps it, -1 is no limit. Without effect where nothing
            is pruned.
        has_draft: a draft model can score before layer 0.
        windowed: layers that see a window only (``ModelFile.windowed``); the default does not prune by them.

    Returns:
        None when the model is to run dense.

    Raises:
        ValueError: the argument is wrong or does not fit the model.
        ModelFileError: the profile inside the model file is wrong.
        OSError: the profile file cannot be read.
    """
    if max_revive is not None and not is_integer(max_revive, -1, INT32_MAX):
        raise ValueError(f"max_revive is {max_revive!r}, expected an integer >= -1 (-1 is no limit)")
    if isinstance(keep, str) and keep == "auto":
        schedule = _of_file(metadata, n_layer, n_head)
        if schedule is None and has_draft:
            schedule = KeepSchedule.drafted()
        elif schedule is None:
            schedule = KeepSchedule.auto(n_layer, windowed) if shipped is None else KeepSchedule.from_dict(shipped)
    else:
        schedule = _explicit(keep)
    if schedule is None:
        return None
    schedule.validate(n_layer, n_head)
    return schedule if max_revive is None else replace(schedule, max_revive=max_revive)


def has_profile(metadata: Mapping[str, Any], shipped: Optional[Mapping[str, Any]]) -> bool:
    """Whether ``keep="auto"`` is a profile made for the model."""
    return PROFILE_KEY in metadata or shipped is not None


def _of_file(metadata: Mapping[str, Any], n_layer: int, n_head: int) -> Optional[KeepSchedule]:
    profile = metadata.get(PROFILE_KEY)
    if profile is None:
        return None
    try:
        schedule = KeepSchedule.from_json(str(profile))
        schedule.validate(n_layer, n_head)
    except ValueError as error:
        raise ModelFileError(f'metadata key {PROFILE_KEY}: {error} (keep="off" ignores it)') from error
    return schedule


def _explicit(keep: KeepArgument) -> Optional[KeepSchedule]:
    if isinstance(keep, KeepSchedule):
        return keep
    if not isinstance(keep, str):
        raise TypeError(f'keep is {repr(keep)[:60]}, expected "auto", "off", a spelling or a KeepSchedule')
    if keep == "off":
        return None
    if keep.endswith(".json"):
        return KeepSchedule.from_json(Path(path_text("keep", keep)).read_text(encoding="utf-8"))
    return KeepSchedule.parse(keep)
