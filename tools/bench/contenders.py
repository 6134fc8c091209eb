"""Who is measured: one contender is one row of each prompt length.

Owns how the command line names keep schedules, lists of them and of prompt lengths. A contender is an engine with
a keep schedule; what else changes how a prompt is read (a draft model) belongs here too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from lazygguf.schedule.keep_schedule import KeepSchedule

from ..schedule_options import Asking, ModelShape, schedule_of, split_schedules

LAZYGGUF = "lazygguf"
LLAMA_CPP = "llama-cpp-python"
IK = "ik_llama.cpp"  # in a process of its own
DENSE = "off"
DEFAULT_KEEPS = ("auto",)  # beside "off"
DEFAULT_LENGTHS = ("512,2048,4096,8192",)

_RANGE = re.compile(r"(\d+)-(\d+)([+*])(\d+)")


@dataclass(frozen=True)
class Contender:
    """One way to read a prompt."""

    engine: str  # LAZYGGUF, LLAMA_CPP or IK
    keep: str = DENSE  # the keep schedule as the command line named it; "off" is dense
    schedule: Optional[KeepSchedule] = None  # what it came to for the model; None is dense

    @property
    def label(self) -> str:
        """Its name in tables and plots."""
        if self.engine != LAZYGGUF:
            return {LLAMA_CPP: "llama.cpp"}.get(self.engine, self.engine)
        spelling = str(self.schedule) if self.schedule is not None else DENSE
        return self.keep if self.keep in (spelling, DENSE) else f"{self.keep} ({spelling})"

    @property
    def is_dense(self) -> bool:
        """Whether it is the row that schedules are compared with."""
        return self.engine == LAZYGGUF and self.keep == DENSE

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, for a child process."""
        schedule = None if self.schedule is None else self.schedule.to_dict()
        return {"engine": self.engine, "keep": self.keep, "schedule": schedule}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Contender:
        """Reads what ``to_dict`` gives."""
        schedule = values["schedule"]
        return cls(values["engine"], values["keep"], None if schedule is None else KeepSchedule.from_dict(schedule))


def split_keeps(given: Optional[Iterable[str]]) -> list[str]:
    """The schedules of repeated --keep options: dense first, each once.

    Raises:
        ValueError: an empty entry.
    """
    keeps = split_schedules(DEFAULT_KEEPS if given is None else given)
    return [DENSE, *(keep for keep in keeps if keep != DENSE)]


def parse_lengths(given: Optional[Sequence[str]]) -> list[int]:
    """Prompt lengths as llama-bench takes them: "512,2048", "512-2048+512", "512-4096*2"; sorted, each once.

    Raises:
        ValueError: not a number above 0, or not such a list.
    """
    lengths: set[int] = set()
    for part in (part.strip() for option in given or DEFAULT_LENGTHS for part in option.split(",")):
        match = _RANGE.fullmatch(part)
        if match:
            lengths.update(_range(part, int(match[1]), int(match[2]), match[3], int(match[4])))
        elif part.isdigit() and int(part) > 0:
            lengths.add(int(part))
        else:
            raise ValueError(f'-p "{part}": expected tokens above 0, such as 512,2048 or 512-8192*2')
    return sorted(lengths)


def _range(part: str, first: int, last: int, sign: str, step: int) -> list[int]:
    if not 0 < first <= last or step < (1 if sign == "+" else 2):
        raise ValueError(f'-p "{part}": expected first-last+step or first-last*factor, rising from above 0')
    values = [first]
    while (following := values[-1] + step if sign == "+" else values[-1] * step) <= last:
        values.append(following)
    return values


def contenders(keeps: Sequence[str], asking: Asking, shape: ModelShape, others: Sequence[str]) -> list[Contender]:
    """The rows of a benchmark, in the order in which they take turns.

    Args:
        keeps: of lazygguf's rows.
        asking: who asks in spelled schedules.
        shape: of the model.
        others: the engines that come first, LLAMA_CPP and IK.

    Raises:
        ValueError: a schedule is wrong or does not fit the model.
    """
    rows = [Contender(engine) for engine in others]
    return rows + [Contender(LAZYGGUF, keep, schedule_of(keep, asking, shape)) for keep in keeps]
