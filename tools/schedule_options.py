"""Keep schedules and drafts on the command line of a tool: how the options become them.

Owns the options that the tools share: the list of schedules, who asks in them, and what a draft is opened with. It
knows nothing of what is done with a schedule.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Optional, Union

from lazygguf.files.model_file import ModelFile
from lazygguf.model.parts import draft_obstacle
from lazygguf.schedule.keep import KeepArgument, resolve_keep
from lazygguf.schedule.keep_schedule import QUESTION, KeepSchedule


@dataclass(frozen=True)
class Asking:
    """Who asks in spelled schedules, and how many pruned tokens may come back; None is the schedule's own."""

    n_query: Union[int, str, None] = None
    pool: Optional[int] = None
    max_revive: Optional[int] = None

    @property
    def of_points(self) -> dict[str, Any]:
        """What is set for the pruning points of a spelled schedule."""
        return {key: value for key in ("n_query", "pool") if (value := getattr(self, key)) is not None}


@dataclass(frozen=True)
class ModelShape:
    """What of a model a schedule must fit, the profile that ships for it, and whether a draft scores before layer 0.

    ``windowed`` are the layers that see a window of the context only.
    """

    n_layer: int
    n_head: int
    metadata: Mapping[str, Any]
    shipped: Optional[Mapping[str, Any]] = None
    has_draft: bool = False
    windowed: Collection[int] = ()


def add_schedule_arguments(group: Any, default: str) -> None:
    """Adds --keep, --n-query, --pool and --max-revive; ``default`` says in the help what is done without --keep."""
    group.add_argument(
        "--keep",
        action="append",
        metavar="WHAT[;...]",
        help=f'schedules: "10:0.3,13:0.1", "auto" or a .json profile; separated by ";", repeatable ({default})',
    )
    group.add_argument(
        "--n-query",
        type=parse_n_query,
        metavar="N",
        help='how many of the newest tokens ask in spelled schedules, or "question": in plain text, the last few (1)',
    )
    group.add_argument("--pool", type=int, metavar="N", help="average scores over N neighbours in spelled ones (1)")
    group.add_argument(
        "--max-revive", type=int, metavar="N", help="tokens brought back per step, -1 no limit (the schedule's)"
    )


def parse_n_query(text: str) -> Union[int, str]:
    """--n-query: a number, or "question"."""
    return text if text == QUESTION else int(text)


def split_schedules(given: Iterable[str]) -> list[str]:
    """The schedules of repeated --keep options, each a list separated by ";", each once.

    A comma belongs to a schedule's own spelling and never separates two.

    Raises:
        ValueError: an empty entry.
    """
    keeps: list[str] = []
    for option in given:
        for part in option.split(";"):
            keep = part.strip()
            if not keep:
                raise ValueError(f'--keep "{option}": an empty schedule, expected such as "10:0.3,13:0.1;auto"')
            if keep not in keeps:
                keeps.append(keep)
    return keeps


def is_spelled(keep: str) -> bool:
    """Whether a --keep is a spelling such as "10:0.3", and no profile, "auto" or "off"."""
    return keep not in ("auto", "off") and not keep.endswith(".json")


def schedule_of(keep: str, asking: Asking, shape: ModelShape) -> Optional[KeepSchedule]:
    """The schedule that a --keep comes to; None is dense.

    Raises:
        ValueError: it is wrong, does not fit the model, or prunes before layer 0 without a draft.
        OSError, ModelFileError: a profile cannot be read.
    """
    argument: KeepArgument = KeepSchedule.parse(keep, **asking.of_points) if is_spelled(keep) else keep
    schedule = resolve_keep(
        argument,
        n_layer=shape.n_layer,
        n_head=shape.n_head,
        metadata=shape.metadata,
        shipped=shape.shipped,
        max_revive=asking.max_revive,
        has_draft=shape.has_draft,
        windowed=shape.windowed,
    )
    if schedule is not None and schedule.entry is not None and not shape.has_draft:
        raise ValueError(f'keep schedule "{keep}": il is -1, which needs scores from outside: name a draft with -md')
    return schedule


def draft_options(args: argparse.Namespace, model_path: str) -> dict[str, Any]:
    """-md, -ngld and --second-look as arguments of ``LazyModel``.

    Raises:
        ValueError: the draft would not run, since the model is not large enough for it.
        OSError, ModelFileError: it cannot be read.
    """
    if args.model_draft is not None:
        obstacle = draft_obstacle(args.model_draft, ModelFile.read(model_path))
        if obstacle:
            raise ValueError(f"-md {args.model_draft}: {obstacle}")
    return {
        "draft": args.model_draft,
        "n_gpu_layers_draft": args.n_gpu_layers_draft,
        "second_look": args.second_look,
    }
