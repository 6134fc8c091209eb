"""A session beside the reference: the same steps, and how far their results may differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import llama_cpp
import numpy as np
from reference import Reference, nmse

from lazygguf import KeepSchedule, PruningPoint
from lazygguf._ffi import NativeModel, NativeSession

# F32 weights and F32 K/V: only the order of sums differs. Measured worst 1e-11.
EXACT = 1e-9
# A score gap below this may fall either way between two orders of summation.
SURE = 1e-5


def prompt(n: int, seed: int = 0, n_vocab: int = 320) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(3, n_vocab, n)]


def new_session(path: Path, schedule: Optional[KeepSchedule] = None, **kwargs: Any) -> NativeSession:
    settings = {"n_ctx": 512, "n_threads": 2, "type_k": "f32", "type_v": "f32", **kwargs}
    model = NativeModel(path, weights=settings.pop("weights", "as-is"))
    return NativeSession(model, schedule=schedule, **settings)


def schedule_of(*points: PruningPoint, **settings: Any) -> KeepSchedule:
    return KeepSchedule(points, **{"n_sink": 0, "min_prompt": 0, "max_revive": -1, "revive_margin": 0.0, **settings})


def logits_of(session: NativeSession) -> np.ndarray:
    logits = session.logits()
    assert logits is not None
    return logits


def llama_logits(model: llama_cpp.Llama, ids: list[int]) -> np.ndarray:
    """llama.cpp's logits after these tokens, which it reads behind those that it has."""
    model.eval(ids)
    return np.array(np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(model.ctx, -1), (model.n_vocab(),)))


def assert_same_step(
    session: NativeSession, reference: Reference, ids: list[int], tolerance: float = EXACT, **kwargs: Any
) -> None:
    """The session does in an eval what the reference does; tolerance: NMSE of the logits."""
    expected = reference.eval(ids, **kwargs)
    sure = all(margin == 0.0 or margin > SURE for margin in reference.margins)  # 0: a tie, which has a rule
    assert sure, "the test's own scores are too close to tell"
    session.eval(ids, **kwargs)
    for s in range(len(reference.segments)):
        assert session.live(s).tolist() == reference.live[s]
        assert session.cached(s).tolist() == reference.cached[s]
    assert session.stats().n_computed == [len(rows) for rows in reference.computed]
    assert session.stats().n_revived == reference.n_revived
    assert nmse(logits_of(session), expected) <= tolerance
