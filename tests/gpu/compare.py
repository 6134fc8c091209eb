"""Two sessions side by side: the same steps, and how far their results may differ.

Owns the tolerances. Kernels of a GPU sum in another order and partly in F16, so a score near the border between kept
and pruned may fall either way, and logits differ by rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np
from reference import nmse, select
from tiny_gguf import TinyConfig

from lazygguf import KeepSchedule
from lazygguf._ffi import NativeModel, NativeSession, Placement

NMSE = 1e-3
NEAR = 1e-4  # scores closer than this may be ranked either way
# ... where what is multiplied is rounded to 8 bits on one side: queries on the CPU where K is quantized, rows on CUDA
# where weights are
NEAR_QUANTIZED, NMSE_QUANTIZED = 1e-3, 5e-3

Op = tuple[Any, ...]
# a prompt, an answer, a later turn that revives, an answer, a step back, and a new conversation
CONVERSATION: list[Op] = [
    ("eval", 150), ("eval", 1), ("eval", 1), ("eval", 40), ("eval", 1),
    ("trim", 160), ("eval", 20), ("reset",), ("eval", 90),
]  # fmt: skip


def gpu_config(**changes: Any) -> TinyConfig:
    """A tiny model of a shape that every backend has kernels for: heads of 64, rows of whole blocks."""
    return TinyConfig(**{"n_embd": 256, "n_ff": 512, **changes})


def prompt(n: int, seed: int = 0, n_vocab: int = 320) -> list[int]:
    """Random token ids."""
    return [int(token) for token in np.random.default_rng(seed).integers(3, n_vocab, n)]


class Chosen(NamedTuple):
    """What a step's live tokens were chosen by: the scores of each point, and the tokens in the context."""

    scores: list[Optional[np.ndarray]]
    n_tokens: int


class PlacedSession(NativeSession):
    """A session on devices that knows its schedule, None for dense, and by what its last step was chosen."""

    def __init__(self, model: NativeModel, schedule: Optional[KeepSchedule], **settings: Any) -> None:
        super().__init__(model, schedule=schedule, **settings)
        self.schedule = schedule
        self.chosen = Chosen([], 0)
        self._goes_on = False  # a plain decode step goes by what the step before chose

    def eval(self, ids: Sequence[int], *args: Any, **kwargs: Any) -> Any:
        """As the session's own."""
        before, is_late = self._choice(), self._goes_on and len(ids) == 1 and not args and not kwargs
        result = super().eval(ids, *args, **kwargs)
        self.chosen = before if is_late else self._choice()
        self._goes_on = True
        return result

    def trim(self, n_tokens: int) -> None:
        """As the session's own."""
        self._goes_on = self._goes_on and n_tokens == self.n_tokens
        super().trim(n_tokens)

    def reset(self) -> None:
        """As the session's own."""
        self._goes_on = False
        super().reset()

    def _choice(self) -> Chosen:
        n_points = 0 if self.schedule is None else len(self.schedule.points)
        return Chosen([self.scores(point) for point in range(n_points)], self.n_tokens)


def open_session(path: Path, schedule: Optional[KeepSchedule], n_gpu_layers: int = 0, **options: Any) -> PlacedSession:
    """A session on devices; ``devices``, ``rpc_servers`` and ``by`` place the model, the rest are the session's."""
    placed = {key: options.pop(key) for key in ("devices", "rpc_servers", "by") if key in options}
    settings = {"n_ctx": 512, "n_ubatch": 64, "n_threads": 1, **options}
    model = NativeModel(path, n_gpu_layers, placement=Placement(schedule=schedule, **placed))
    return PlacedSession(model, schedule, **settings)


def logits_of(session: NativeSession) -> np.ndarray:
    """Of the last eval, (n_vocab,)."""
    logits = session.logits()
    assert logits is not None
    return logits


def close(*sessions: NativeSession) -> None:
    """Frees the sessions and their models."""
    for session in sessions:
        session.close()
        session._model.close()


@contextmanager
def opening() -> Iterator[Callable[..., PlacedSession]]:
    """Gives ``open_session``; what it opened is closed at the end."""
    sessions: list[PlacedSession] = []

    def open_one(*args: Any, **options: Any) -> PlacedSession:
        sessions.append(open_session(*args, **options))
        return sessions[-1]

    yield open_one
    close(*sessions)


class Compared(NamedTuple):
    """What was compared: evals that gave the same, all evals, and tokens revived in the former."""

    n_same: int
    n_evals: int
    n_revived: int


def tolerance(gpu: str, weight_type: str) -> tuple[float, float]:
    """(near, NMSE) of a GPU beside weights in F32 on the CPU."""
    rounds = gpu.startswith("CUDA") and weight_type.startswith("Q")
    return (NEAR_QUANTIZED, NMSE_QUANTIZED) if rounds else (NEAR, NMSE)


def assert_same_steps(
    cpu: PlacedSession,
    other: PlacedSession,
    ops: Sequence[Op] = CONVERSATION,
    near: float = NEAR,
    most: float = NMSE,
) -> Compared:
    """Runs the steps in both sessions and compares them after each.

    Where a near tie fell the other way they hold different rows, and are compared again after the next reset.
    """
    is_same, n_same, n_revived = True, 0, 0
    for seed, op in enumerate(ops):
        for session in (cpu, other):
            if op[0] == "eval":
                session.eval(prompt(op[1], seed))
            else:
                getattr(session, op[0])(*op[1:])
        assert other.n_tokens == cpu.n_tokens
        is_same = op[0] == "reset" or (is_same and (op[0] != "eval" or assert_same_step(cpu, other, near, most)))
        if is_same and op[0] == "eval":
            n_same, n_revived = n_same + 1, n_revived + cpu.stats().n_revived
    return Compared(n_same, sum(op[0] == "eval" for op in ops), n_revived)


def assert_same_step(cpu: PlacedSession, other: PlacedSession, near: float = NEAR, most: float = NMSE) -> bool:
    """The last eval gave the same; False where a near tie was ranked the other way."""
    for s in range(len(cpu.stats().n_layers)):
        if cpu.live(s).tolist() != other.live(s).tolist():
            _assert_near_tie(cpu, other, s, near)
            return False
        assert cpu.cached(s).tolist() == other.cached(s).tolist()
    assert other.stats().n_computed == cpu.stats().n_computed
    assert other.stats().n_revived == cpu.stats().n_revived
    error = nmse(logits_of(other), logits_of(cpu))
    assert error <= most, f"logits differ by {error:.2g}"
    return True


def _assert_near_tie(cpu: PlacedSession, other: PlacedSession, segment: int, near: float) -> None:
    """What one selected, or revived of the same selection, scores nearly what the other took in its place."""
    scores = _scores(cpu, segment - 1)
    pairs = _selected(cpu, segment - 1), _selected(other, segment - 1)
    if pairs[0] == pairs[1]:
        pairs = set(cpu.live(segment).tolist()), set(other.live(segment).tolist())
    kept, also = pairs[0] - pairs[1], pairs[1] - pairs[0]
    assert len(kept) == len(also) > 0
    gap = max(scores[pos] for pos in kept) - min(scores[pos] for pos in also)
    assert gap < near, f"{sorted(kept)} were taken and not {sorted(also)}, which score {gap} less"


def _scores(session: PlacedSession, point: int) -> dict[int, float]:
    scores = session.chosen.scores[point]
    assert scores is not None
    return {int(pos): float(scores[pos]) for pos in np.flatnonzero(~np.isnan(scores))}


def _selected(session: PlacedSession, point: int) -> set[int]:
    """What the definition selects at a pruning point by the session's own scores."""
    schedule, n_tokens = session.schedule, session.chosen.n_tokens
    assert schedule is not None
    n_query = max(int(p.n_query) for p in schedule.points)
    protected = {*range(schedule.n_sink), *range(n_tokens - n_query, n_tokens)}
    return set(select(_scores(session, point), protected, schedule.points[point].keep, n_tokens))
