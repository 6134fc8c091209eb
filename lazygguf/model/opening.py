"""From options to what they open: weights, contexts, the draft.

Owns when a draft is opened at all, and whose weights it reads with.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from typing import Any, Optional, Union

from .._ffi import NativeFile, NativeModel, NativeSession, Placement
from .._ffi.rpc import parse_servers
from ..draft.draft import Draft, DraftModel, DraftSettings
from ..draft.reader import DraftReader, DraftRules
from ..draft.second_look import LookAgain
from ..files.shipped_profiles import fingerprint, shipped_profile, shipped_scoring
from ..files.size import ModelSize, size_of
from ..read.context import TokenContext
from ..schedule.keep_schedule import KeepSchedule
from ..schedule.scoring import resolve_scoring
from ..text.prompt_text import compile_headings
from ..text.tokenizer import Tokenizer
from ..threads import physical_cores
from .devices import device_names, layer_count
from .options import ModelOptions

MIN_RATIO = 3.0  # times that a model must be larger than its draft, in parameters


@dataclass(frozen=True)
class ModelFile:
    """A checked model file.

    Attributes:
        path: where it is.
        metadata: its key-value pairs.
        size: of the model in it.
        fingerprint: what identifies the model, whatever its quantization; None where nothing does.
    """

    path: str
    metadata: dict[str, Any]
    size: ModelSize
    fingerprint: Optional[str]

    @property
    def shipped(self) -> Optional[dict[str, Any]]:
        """The keep profile that ships for this model."""
        return shipped_profile(self.fingerprint)

    @property
    def shipped_scoring(self) -> Optional[dict[str, Any]]:
        """The scoring profile that ships for this model as a draft."""
        return shipped_scoring(self.fingerprint)

    @classmethod
    def read(cls, path: Union[str, os.PathLike[str]]) -> ModelFile:
        """Reads and checks a file, no weights.

        Raises:
            OSError, ModelFileError, UnsupportedModelError: as ``LazyModel``.
        """
        with NativeFile(path) as file:
            file.check()
            return cls(os.fspath(path), file.metadata, size_of(file), fingerprint(os.fspath(path), file))


def load_weights(
    path: str, options: ModelOptions, n_layer: int = 0, schedule: Optional[KeepSchedule] = None
) -> NativeModel:
    """The weights of a model file, as the options say.

    Args:
        path: a GGUF file.
        options: see there.
        n_layer: layers that are read, 0 is all.
        schedule: what contexts on the weights will be given, which says how many tokens a layer sees; None is dense.
    """
    placement = Placement(
        devices=device_names(options.device),
        rpc_servers=parse_servers(options.rpc_servers),
        by=options.placement,
        schedule=schedule,
        n_ctx=options.n_ctx,
        n_ubatch=min(options.n_ubatch, options.n_batch),
        type_k=options.type_k,
        type_v=options.type_v,
    )
    n_gpu_layers = layer_count(options.n_gpu_layers)
    return NativeModel(path, n_gpu_layers, options.use_mmap, options.weights, n_layer, placement)


def open_context(
    weights: NativeModel,
    options: ModelOptions,
    schedule: Optional[KeepSchedule],
    reader: Optional[DraftReader] = None,
    draft_note: str = "",
) -> TokenContext:
    """An empty context on weights, with its own caches and keep schedule; weights can carry several."""
    n_threads = options.n_threads or physical_cores()
    session = NativeSession(
        weights,
        n_ctx=options.n_ctx,
        n_ubatch=min(options.n_ubatch, options.n_batch),
        n_threads=n_threads,
        n_threads_batch=options.n_threads_batch or n_threads,
        type_k=options.type_k,
        type_v=options.type_v,
        schedule=schedule,
    )
    if options.verbose:
        for line in filter(None, [weights.desc, session.notes]):
            print(f"lazygguf: {line}", file=sys.stderr)
    return TokenContext(session, options.progress_callback, reader, draft_note)


def draft_obstacle(draft_size: ModelSize, target: ModelSize) -> str:
    """Why a draft of this size is not worth running for a model of that one; "" where it is."""
    ratio = target.n_params / draft_size.n_params
    if ratio >= MIN_RATIO:
        return ""
    return f"not run: the model is {ratio:.1f} times as large as the draft, expected at least {MIN_RATIO:g} times"


def draft_size(draft: Any) -> ModelSize:
    """The size of what a ``draft`` argument names: a path or a ``LazyModel``."""
    return ModelFile.read(getattr(draft, "model_path", draft)).size


def open_draft_model(draft: Any, options: ModelOptions) -> DraftModel:
    """Opens what a ``draft`` argument names.

    Raises:
        ValueError, OSError, ModelFileError, UnsupportedModelError, MemoryError: as ``LazyModel``; the scoring profile
            is wrong or does not fit.
    """
    if hasattr(draft, "as_draft"):
        return draft.as_draft(options.scoring)  # type: ignore[no-any-return]
    file = ModelFile.read(draft)
    profile = resolve_scoring(options.scoring, file.metadata, file.shipped_scoring)
    weights = load_weights(file.path, _draft_options(options), profile.n_layer)
    return DraftModel(weights, Tokenizer(file.path), profile, file.size)


def _draft_options(options: ModelOptions) -> ModelOptions:
    """A draft's weights are fast, since nobody compares its bits, and never on another machine: it is small."""
    is_local = options.rpc_servers is None
    n_gpu_layers = options.n_gpu_layers_draft
    if n_gpu_layers is None:
        n_gpu_layers = options.n_gpu_layers if is_local else 0
    device = options.device if is_local and layer_count(n_gpu_layers) != 0 else None
    return replace(options, weights="fast", n_gpu_layers=n_gpu_layers, device=device, rpc_servers=None)


def draft_reader(
    model: DraftModel, target: ModelSize, tokenizer: Tokenizer, schedule: KeepSchedule, options: ModelOptions
) -> DraftReader:
    """Reads the prompts of one context; ``schedule`` is that context's."""
    n_threads = options.n_threads or physical_cores()
    settings = DraftSettings(options.n_threads_batch or n_threads, min(options.n_ubatch, options.n_batch))
    rules = DraftRules(
        size=target,
        entry=schedule.entry,
        min_prompt=schedule.min_prompt,
        look_again=LookAgain(share=options.second_look),
        headings=compile_headings(options.headings),
        dense_unasked=schedule.dense_unasked,
    )
    return DraftReader(Draft(model, tokenizer, settings), rules)


class Drafting:
    """The draft of one model: whether it runs, what reads with it, and that it is closed with the model.

    Attributes:
        note: why a draft that was given does not run; "" where it does, or where there is none.

    Raises:
        OSError, ModelFileError, UnsupportedModelError: the draft's file cannot be read.
    """

    def __init__(self, target: ModelFile, options: ModelOptions) -> None:
        self._target, self._options = target, options
        self._model: Optional[DraftModel] = None
        self._reader: Optional[DraftReader] = None
        self.note = "" if options.draft is None else draft_obstacle(draft_size(options.draft), target.size)

    @property
    def can_run(self) -> bool:
        """Is there a draft that is small enough?"""
        return self._options.draft is not None and not self.note

    def open(self, schedule: Optional[KeepSchedule], tokenizer: Tokenizer) -> Optional[DraftReader]:
        """Opens the draft for the model's context; None where it does not run."""
        if not self.can_run:
            return None
        if schedule is None or schedule.entry is None:
            self.note = 'not run: the keep schedule has no pruning point before layer 0 such as "-1:0.2"'
            return None
        self._model = open_draft_model(self._options.draft, self._options)
        self._reader = draft_reader(self._model, self._target.size, tokenizer, schedule, self._options)
        return self._reader

    def close(self) -> None:
        """Frees what was opened; a second call does nothing."""
        if self._reader is not None:
            self._reader.close()
        if self._model is not None:
            self._model.close()
        self._model = self._reader = None
