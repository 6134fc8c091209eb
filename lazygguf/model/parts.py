"""A model file and what is opened of it: weights, tokenizer, draft, contexts.

Owns how options become these parts, and that they are closed together. ``LazyModel`` is one context on them; tools
that compare schedules open several on one copy of the weights.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Optional, TypeVar, Union

from .._ffi import NativeModel, NativeSession, Placement
from .._ffi.rpc import parse_servers
from ..draft.draft import Draft, DraftModel
from ..draft.reader import DraftReader, DraftRules
from ..draft.rules import SecondLook
from ..errors import ModelFileError
from ..files.model_file import ModelFile
from ..read.context import TokenContext
from ..read.watched_session import WatchedSession
from ..schedule.keep import KeepArgument, has_profile, resolve_keep
from ..schedule.keep_schedule import KeepSchedule
from ..schedule.scoring import resolve_scoring
from ..text.prompt_text import compile_headings
from ..text.tokenizer import Tokenizer
from ..threads import physical_cores
from .devices import ALL_LAYERS, device_names, layer_count, no_gpu_asked
from .options import ModelOptions

logger = logging.getLogger("lazygguf")

_SPECIAL_PREFIX = "tokenizer.ggml."

MIN_RATIO = 3.0  # times that a model must be larger than its draft, in parameters

Part = TypeVar("Part")


class ModelParts:
    """Opens each part when it is first asked for. Use it as a context manager or call ``close``.

    Args:
        path: a GGUF file.
        options: only ``main_context`` looks at ``keep`` and ``max_revive``; other contexts are given their schedule.
        placed_for: the schedule by whose work layers are placed on devices; None is dense.

    Attributes:
        file: the checked file.

    Raises:
        OSError, ModelFileError, UnsupportedModelError, MemoryError, ValueError, LazyError: as ``LazyModel``; here, and
            where a part is opened.
    """

    def __init__(
        self, path: Union[str, os.PathLike[str]], options: ModelOptions, placed_for: Optional[KeepSchedule] = None
    ) -> None:
        self.file = ModelFile.read(path)
        self.options = options
        self.placed_for = placed_for
        self._opened: list[Any] = []

    @cached_property
    def weights(self) -> NativeModel:
        """All contexts' weights."""
        return self._keep(load_weights(self.file.path, self.options, schedule=self.placed_for))

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary."""
        return self._keep(Tokenizer(self.file.path))

    @cached_property
    def draft(self) -> DraftModel:
        """The draft that the options name."""
        return self._keep(_open_draft(self.options.draft, self.options))

    @cached_property
    def draft_obstacle(self) -> str:
        """Why the draft that the options name is not worth running; "" where it is, or where they name none."""
        return "" if self.options.draft is None else draft_obstacle(self.options.draft, self.file)

    def main_context(self) -> TokenContext:
        """The context that the options ask for; ``placed_for`` is then its schedule. Warns of what is doubtful."""
        options, file = self.options, self.file
        can_draft = options.draft is not None and not self.draft_obstacle
        schedule = self.placed_for = self._schedule(options.keep, options.max_revive, can_draft)
        weights = self.weights
        if options.keep == "auto" and not can_draft and not has_profile(file.metadata, file.shipped):
            logger.warning("no keep profile for this model, a careful default is used; lazygguf calibrate makes one")
        _warn_of_ids(file.metadata, weights.n_vocab)
        if options.n_ctx > weights.n_ctx_train:
            logger.warning("n_ctx is %d, above the %d the model was trained with", options.n_ctx, weights.n_ctx_train)
        context = self.context(schedule, can_draft, watched=True)
        context.draft_note = self.draft_obstacle
        if can_draft and (schedule is None or schedule.entry is None):
            context.draft_note = 'not run: the keep schedule has no pruning point before layer 0 such as "-1:0.2"'
        return context

    def context(
        self, schedule: Optional[KeepSchedule], with_draft: bool = False, watched: bool = False
    ) -> TokenContext:
        """An empty context with its own caches.

        Args:
            schedule: None is dense.
            with_draft: the draft chooses what goes on at the schedule's point before layer 0, where it has one.
            watched: it is noted what answers lean on (``TokenContext.attended``).
        """
        options, weights, reader = self.options, self.weights, None
        n_threads = options.n_threads or physical_cores()
        if with_draft and schedule is not None and schedule.entry is not None:
            reader = self._draft_reader(schedule)
        native = NativeSession(
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
            for line in filter(None, [weights.desc, native.notes]):
                print(f"lazygguf: {line}", file=sys.stderr)
        session: Any = native
        if watched:
            shape = weights.n_layer, weights.n_head
            session = WatchedSession.of(native, schedule, self._usual_schedule(), *shape)
        return self._keep(TokenContext(session, options.progress_callback, reader))

    def _usual_schedule(self) -> Optional[KeepSchedule]:
        """What ``keep="auto"`` is without a draft; the careful default where the file's own profile is wrong."""
        try:
            return self._schedule("auto")
        except ModelFileError:
            return KeepSchedule.auto(self.file.hparam("block_count"), self.file.windowed)

    def _schedule(
        self, keep: KeepArgument, max_revive: Optional[int] = None, has_draft: bool = False
    ) -> Optional[KeepSchedule]:
        """What a ``keep`` comes to for this model; see ``resolve_keep``."""
        file = self.file
        return resolve_keep(
            keep,
            n_layer=file.hparam("block_count"),
            n_head=file.hparam("attention.head_count"),
            metadata=file.metadata,
            shipped=file.shipped,
            max_revive=max_revive,
            has_draft=has_draft,
            windowed=file.windowed,
        )

    def close(self) -> None:
        """Closes all that is open; a second call does nothing.

        Raises:
            RuntimeError: another thread reads with it. Nothing more is closed then.
        """
        while self._opened:
            self._opened[-1].close()
            self._opened.pop()

    def __enter__(self) -> ModelParts:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _keep(self, part: Part) -> Part:
        self._opened.append(part)
        return part

    def _draft_reader(self, schedule: KeepSchedule) -> DraftReader:
        options = self.options
        n_threads = options.n_threads_batch or options.n_threads or physical_cores()
        rules = DraftRules(
            size=self.file.size,
            entry=schedule.entry,
            min_prompt=schedule.min_prompt,
            second_look=SecondLook(share=options.second_look),
            headings=compile_headings(options.headings),
            dense_unasked=schedule.dense_unasked,
        )
        draft = Draft(self.draft, self.tokenizer, n_threads, min(options.n_ubatch, options.n_batch))
        return DraftReader(draft, rules)


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
    if options.n_gpu_layers == ALL_LAYERS and no_gpu_asked(options.device, placement.rpc_servers):
        logger.warning("n_gpu_layers is -1, but there is no GPU here: the model runs on the CPU")
        n_gpu_layers = 0
    return NativeModel(path, n_gpu_layers, options.use_mmap, options.weights, n_layer, placement)


def draft_obstacle(draft: Any, target: ModelFile) -> str:
    """Why a draft, a path or a ``LazyModel``, is not worth running for a model; "" where it is.

    Raises:
        OSError, ModelFileError, UnsupportedModelError: the draft's file cannot be read.
    """
    size = ModelFile.read(getattr(draft, "model_path", draft)).size
    ratio = target.size.n_params / size.n_params
    if ratio >= MIN_RATIO:
        return ""
    return f"not run: the model is {ratio:.1f} times as large as the draft, expected at least {MIN_RATIO:g} times"


def draft_options(options: ModelOptions) -> ModelOptions:
    """The options that a draft is opened with.

    Its weights are in the fast form, since nobody compares its bits. It is small, so it never runs on another machine.
    """
    is_local = options.rpc_servers is None
    n_gpu_layers = options.n_gpu_layers_draft
    if n_gpu_layers is None:
        n_gpu_layers = options.n_gpu_layers if is_local else 0
    device = options.device if is_local and layer_count(n_gpu_layers) != 0 else None
    return replace(options, weights="fast", n_gpu_layers=n_gpu_layers, device=device, rpc_servers=None)


def _open_draft(draft: Any, options: ModelOptions) -> DraftModel:
    if hasattr(draft, "as_draft"):
        return draft.as_draft(options.scoring)  # type: ignore[no-any-return]
    file = ModelFile.read(draft)
    profile = resolve_scoring(options.scoring, file.metadata, file.shipped_scoring, file.windowed)
    weights = load_weights(file.path, draft_options(options), profile.n_layer)
    return DraftModel(weights, Tokenizer(file.path), profile, file)


def _warn_of_ids(metadata: Mapping[str, Any], n_vocab: int) -> None:
    """Says which special tokens the model will be without: llama.cpp drops an id that is none of the vocabulary."""
    for key, token in metadata.items():
        name = key[len(_SPECIAL_PREFIX) :]
        is_id = key.startswith(_SPECIAL_PREFIX) and name.endswith("_token_id") and isinstance(token, int)
        if is_id and not 0 <= token < n_vocab:
            logger.warning("the file's %s is %d, outside the vocabulary of %d tokens: ignored", name, token, n_vocab)
