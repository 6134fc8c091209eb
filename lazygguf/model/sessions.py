"""A model's sessions on disk and in memory, and the cache of them that ``llama_cpp`` programs set.

Owns what of a ``LazyModel`` goes into a saved session beside its context: where it came from, and the state of its
seed. The file's header and parts are ``read/saved.py``'s.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Generator
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Optional, Protocol, TypeVar, Union

import numpy as np
from llama_cpp.llama import LlamaState

from .._ffi import ggml_version, isa
from .._names import path_text
from ..errors import SessionFileError
from ..files.atomic_file import replaced_file
from ..files.block_file import MAGIC
from ..read.context import TokenContext
from ..read.saved import Origin, load_context, save_context
from ..read.tokens import n_common
from ..schedule.keep_schedule import KeepSchedule
from .options import ModelOptions
from .parts import ModelParts

PathLike = Union[str, "os.PathLike[str]"]
Piece = TypeVar("Piece")

_IN_MEMORY = "the state"  # what messages call a session that is in no file


class StateCache(Protocol):
    """What ``llama_cpp``'s caches offer (``LlamaRAMCache``, ``LlamaDiskCache``)."""

    def __getitem__(self, key: Any) -> Any: ...
    def __setitem__(self, key: Any, value: Any) -> None: ...


class SavedSessions:
    """Saves and restores one context of a model.

    Args:
        parts: the model.
        context: its context.
        schedule: the context's.
        seeds: draws the seeds of calls that give none; None where the model has no seed.
    """

    def __init__(
        self,
        parts: ModelParts,
        context: TokenContext,
        schedule: Optional[KeepSchedule],
        seeds: Optional[np.random.Generator],
    ) -> None:
        self._parts = parts
        self._context = context
        self._schedule = schedule
        self._seeds = seeds

    def save(self, path: PathLike, extra: Any) -> None:
        """See ``LazyModel.save_session``."""
        with replaced_file(path_text("path", path), MAGIC) as file:
            save_context(file, self._context, self._origin(), extra, self._state())

    def load(self, path: PathLike) -> Any:
        """See ``LazyModel.load_session``."""
        name = path_text("path", path)
        with open(name, "rb", buffering=0) as file:
            return self._load(file, name)

    def state(self) -> LlamaState:
        """See ``LazyModel.save_state``."""
        out = io.BytesIO()
        save_context(out, self._context, self._origin(), None, self._state())
        data = out.getvalue()
        logits = self._context.logits()
        scores = np.empty((0, self._parts.weights.n_vocab), np.float32) if logits is None else logits[None]
        ids = np.asarray(self._context.ids, np.intc)
        seed = self._options.seed
        return LlamaState(ids, scores, len(ids), data, len(data), -1 if seed is None else seed)

    def restore(self, state: Any) -> None:
        """See ``LazyModel.load_state``."""
        data = getattr(state, "llama_state", None)
        if not isinstance(data, bytes):
            raise TypeError(f"state is {type(state).__name__}, expected what save_state gave")
        self._load(io.BytesIO(data), _IN_MEMORY)

    def through(
        self, cache: StateCache, ids: list[int], pieces: Generator[Piece, None, None]
    ) -> Generator[Piece, None, None]:
        """The pieces of an answer, begun from the cache's state where it has more of the prompt than the context.

        When they are through the cache gets the state, under the ids of prompt and answer.
        """
        self._restore_nearest(cache, ids)
        with contextlib.closing(pieces):
            yield from pieces
        cache[tuple(self._context.ids)] = self.state()

    def _restore_nearest(self, cache: StateCache, ids: list[int]) -> None:
        try:
            state = cache[ids]
        except KeyError:
            return
        if n_common(state.input_ids, ids) > n_common(self._context.ids, ids):
            self.restore(state)

    @property
    def _options(self) -> ModelOptions:
        return self._parts.options

    def _load(self, file: Any, name: str) -> Any:
        drawn: list[Any] = []

        def check(state: Any) -> None:
            if isinstance(state, dict) and self._seeds is not None and state.get("seed") == self._options.seed:
                drawn.append(_checked_draws(state.get("drawn"), name))

        extra = load_context(file, name, self._context, self._origin(), check)
        if self._seeds is not None and drawn:  # the next call without a seed draws what it would have drawn there
            self._seeds.bit_generator.state = drawn[0]
        return extra

    def _origin(self) -> Origin:
        file, options = self._parts.file, self._options
        return Origin(
            weights_id=file.weights_id,
            fingerprint=file.fingerprint,
            model=str(file.metadata.get("general.name") or os.path.basename(file.path)),
            type_k=options.type_k,
            type_v=options.type_v,
            schedule=None if self._schedule is None else self._schedule.to_dict(),
            build={"lazygguf": _version(), "ggml": ggml_version(), "kernels": isa(), "weights": options.weights},
        )

    def _state(self) -> Optional[dict[str, Any]]:
        """Where the draws of the model's seed are; None where it has none."""
        if self._seeds is None:
            return None
        return {"seed": self._options.seed, "drawn": dict(self._seeds.bit_generator.state)}


def _checked_draws(drawn: Any, name: str) -> Any:
    """The state of a generator, if it is one."""
    try:
        np.random.default_rng(0).bit_generator.state = drawn
    except (TypeError, ValueError, KeyError, OverflowError):
        raise SessionFileError(f"{name}: the saved session is damaged: its seed has no state") from None
    return drawn


@lru_cache(maxsize=1)
def _version() -> str:
    try:
        return version("lazygguf")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0.0.0"
