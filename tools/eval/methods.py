"""What is compared: the dense run, the schedules under test, and the baselines, all in the same engine.

Owns the baselines' schedules and scores, and the share of dense work that a schedule promises.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from lazygguf.schedule.keep_schedule import BEFORE_LAYER_0, KeepSchedule, PruningPoint

from ..schedule_options import Asking, ModelShape, schedule_of
from .prompts import TaskPrompt

BASELINES = ("dense", "random", "recent", "static", "paper")
SHARED_BASELINES = frozenset(("random", "recent", "static"))  # that do as much work as a schedule under test
DEFAULT_SHARE = 0.46  # where no schedule is given to be matched: about 2.2 times less work
STATIC_DEPTH = 0.15  # of the layers, before the static baseline prunes
PAPER_DEPTHS = ((30, 0.5), (60, 0.25), (85, 0.125))  # percent of the layers, share kept: half of the entering
N_SINK = 4  # StreamingLLM's

DENSE = "dense"


@dataclass(frozen=True)
class Method:
    """One way to read a prompt."""

    label: str  # its name in the table
    kind: str  # a name of BASELINES, or "keep" for a schedule under test
    schedule: Optional[KeepSchedule]  # None reads everything
    promised_share: float = 1.0  # share of the dense work that the schedule promises
    seed: int = 0  # of random scores
    draft: str = ""  # what scores before layer 0, by its identity; "" where nothing does

    @property
    def is_adaptive(self) -> bool:
        """Whether a prompt decides how much of it is read."""
        return self.schedule is not None and any(point.mass < 1.0 for point in self.schedule.points)

    @property
    def digest(self) -> str:
        """A hash of all that decides its answers; the label does not."""
        schedule = None if self.schedule is None else self.schedule.to_dict()
        seed = self.seed if self.kind == "random" else None
        scored = self.kind if self.kind in ("random", "recent") else None
        content = json.dumps([schedule, scored, seed, *([self.draft] if self.draft else [])], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def scores(self, prompt: TaskPrompt) -> Optional[npt.NDArray[np.float32]]:
        """Scores from outside for the point before layer 0, (n_tokens,); None where the method has no such point.

        What follows the question (the template's tail) is kept as the question is: without it nothing answers.
        """
        n_tokens = len(prompt.ids)
        if self.kind == "recent":
            scores = np.arange(n_tokens, dtype=np.float32)
        elif self.kind == "random":
            seed = int.from_bytes(hashlib.sha256(f"{self.seed}/{prompt.digest}".encode()).digest()[:8], "big")
            scores = np.random.default_rng(seed).random(n_tokens, dtype=np.float32)
        else:
            return None
        if prompt.query_span is not None:
            begin, end = prompt.query_span
            scores[begin:end] += n_tokens + 1
            scores[-_n_tail(prompt) :] += n_tokens + 1
        return scores

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        schedule = None if self.schedule is None else self.schedule.to_dict()
        return {
            "label": self.label,
            "kind": self.kind,
            "schedule": schedule,
            "promised_share": round(self.promised_share, 6),
            "draft": self.draft,
        }


def _n_tail(prompt: TaskPrompt) -> int:
    """Tokens after a question that stands at the end; 1 where it stands elsewhere: the newest token."""
    n_after = len(prompt.ids) - (prompt.query_span[1] if prompt.query_span else 0)
    return n_after if 0 < n_after <= 32 else 1


@dataclass(frozen=True)
class BaselineOptions:
    """How the baselines are set."""

    names: Sequence[str]  # of BASELINES
    # token share of random, recent and static; None is that of the first schedule under test
    share: Optional[float] = None
    static_il: Optional[int] = None  # layer after which the static baseline prunes; None is at 15% of the layers
    # spelling of the paper's schedule; None is half of the entering tokens after 30, 60 and 85% of the layers
    paper: Optional[str] = None
    seed: int = 0  # of random scores


def promised_share(schedule: Optional[KeepSchedule], n_layer: int) -> float:
    """Share of the dense work of reading: the mean over layers of the share of tokens they see."""
    if schedule is None:
        return 1.0
    total, keep, done = 0.0, 1.0, 0
    for point in schedule.points:
        total += keep * (point.il + 1 - done)
        done, keep = point.il + 1, point.keep
    return (total + keep * (n_layer - done)) / n_layer


def make_methods(
    keeps: Sequence[str], asking: Asking, baselines: BaselineOptions, shape: ModelShape, draft: str = ""
) -> list[Method]:
    """All methods, dense first, then the schedules under test, then the other baselines.

    Raises:
        ValueError: a schedule or a setting does not fit the model.
        OSError, ModelFileError: a profile cannot be read.
    """
    tested = [tested_method(keep, schedule_of(keep, asking, shape), shape.n_layer, draft) for keep in keeps]
    methods = [Method(DENSE, DENSE, None)] if DENSE in baselines.names or any(m.kind == DENSE for m in tested) else []
    methods += [method for method in tested if method.kind != DENSE]
    share = baselines.share
    if share is None:
        share = next((method.promised_share for method in tested if method.promised_share < 1), DEFAULT_SHARE)
    for name in baselines.names:
        if name != DENSE:
            methods.append(_baseline(name, share, baselines, asking, shape))
    seen: dict[str, str] = {}
    for method in methods:
        if method.digest in seen:
            raise ValueError(f"{seen[method.digest]} and {method.label} are the same schedule; give it once")
        seen[method.digest] = method.label
    return methods


def tested_method(label: str, schedule: Optional[KeepSchedule], n_layer: int, draft: str = "") -> Method:
    """A schedule under test; None is the dense run. ``draft`` is what scores before layer 0, by its identity."""
    if schedule is None:
        return Method(DENSE, DENSE, None)
    reads_with = draft if schedule.entry is not None else ""
    return Method(label, "keep", schedule, promised_share(schedule, n_layer), draft=reads_with)


def _baseline(name: str, share: float, options: BaselineOptions, asking: Asking, shape: ModelShape) -> Method:
    if name in ("random", "recent"):
        schedule = KeepSchedule((PruningPoint(BEFORE_LAYER_0, share),), n_sink=N_SINK, min_prompt=0, max_revive=0)
        label = f"{name} {share:.2g}"
    elif name == "static":
        schedule = _static(share, options.static_il, asking, shape.n_layer)
        label = f"static {schedule.points[0].il}:{schedule.points[0].keep:.2g}"
    else:
        schedule = KeepSchedule.paper(options.paper or paper_spelling(shape.n_layer))
        label = f"paper {schedule}"
    schedule.validate(shape.n_layer, shape.n_head)
    return Method(label, name, schedule, promised_share(schedule, shape.n_layer), options.seed)


def paper_spelling(n_layer: int) -> str:
    """The paper's rule at paper-like early layers; the paper does not publish its schedules."""
    points = {-(-n_layer * percent // 100) - 1: keep for percent, keep in PAPER_DEPTHS}
    usable = [(il, keep) for il, keep in points.items() if 0 <= il <= n_layer - 2]
    if not usable:
        raise ValueError(f"baseline paper: a model of {n_layer} layers leaves none after the first pruning point")
    return ",".join(f"{il}:{keep}" for il, keep in usable)


def _static(share: float, il: Optional[int], asking: Asking, n_layer: int) -> KeepSchedule:
    """Prunes once after layer ``il`` and brings nothing back; all layers together do ``share`` of the dense work."""
    if il is None:
        il = max(0, round(STATIC_DEPTH * n_layer) - 1)
    if not 0 <= il <= n_layer - 2:
        raise ValueError(f"--static-il {il}, expected a layer in [0, {n_layer - 2}]")
    n_before = il + 1
    keep = (share * n_layer - n_before) / (n_layer - n_before)
    if keep <= 0:
        raise ValueError(
            f"baseline static: {n_before} of {n_layer} layers before the pruning point are more than the share "
            f"{share:.2g} of the work; give an earlier --static-il or a larger --baseline-share"
        )
    return KeepSchedule((PruningPoint(il, keep, **asking.of_points),), n_sink=N_SINK, min_prompt=0, max_revive=0)
