"""lazygguf and llama-cpp-python behind one face: read tokens, give logits, forget.

Owns how all engines are opened with the same settings, a peer's process (``peer.py``) too. All contenders of lazygguf
share one copy of the weights; each other engine holds its own. All run with flash attention, but for a peer where it is
left out, and with an F16 K/V cache.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Optional, Protocol, Union

import llama_cpp
import numpy as np
import numpy.typing as npt

from lazygguf.errors import LazyError
from lazygguf.model.devices import layer_count
from lazygguf.model.options import ModelOptions
from lazygguf.model.parts import ModelParts
from lazygguf.read.context import TokenContext
from lazygguf.read.prompt import Prompt

from .contenders import IK, LLAMA_CPP, Contender
from .peer import PeerProcess

Logits = npt.NDArray[np.float32]
TYPE_KV = "f16"


@dataclass(frozen=True)
class Settings:
    """What every engine is opened with. What llama-cpp-python lacks is lazygguf's alone (see ``ModelOptions``).

    ``draft`` is the path of a draft model, for the contenders whose schedules prune before layer 0. What begins with
    ``peer_`` is a peer's alone: the Python that has it, and whether it uses flash attention.
    """

    n_threads: int
    n_ctx: int = 0
    n_ubatch: int = 512
    n_gpu_layers: Union[int, str] = 0
    n_gpu_layers_draft: Union[int, str, None] = None
    device: Optional[str] = None
    rpc_servers: Optional[str] = None
    placement: str = "work"
    weights: str = "fast"
    draft: Optional[str] = None
    second_look: float = 0.05
    peer_python: str = ""
    peer_flash_attn: bool = True

    def options(self) -> ModelOptions:
        """The same for ``LazyModel``."""
        ours = {name: value for name, value in asdict(self).items() if not name.startswith("peer_")}
        return ModelOptions(**ours, n_batch=self.n_ubatch)


class Counts(NamedTuple):
    """What an engine says of its last reads."""

    token_share: float  # share of the dense work that reading the last tokens took, the draft's included
    kv_bytes: Optional[int]  # kv_bytes, aux_bytes: held after them; None where the engine does not tell
    aux_bytes: Optional[int]
    draft_s: float = 0.0  # seconds of the draft
    draft_share: float = 0.0  # its part of token_share


class Engine(Protocol):
    """What can be measured."""

    def read(self, ids: Sequence[int], n_asked: int = 0) -> None:
        """Reads tokens after those in the context; returns when the last one's logits are there.

        Args:
            ids: the tokens.
            n_asked: of those, the newest, which are a question.
        """

    def logits(self) -> Logits:
        """Logits after the newest token, (n_vocab,), a copy."""

    def counts(self) -> Counts:
        """Of the last read."""

    def reset(self) -> None:
        """Forgets every token."""

    def cancel(self) -> None:
        """Stops the read under way where the engine can; from any thread."""

    def close(self) -> None:
        """Frees it."""


class LazyEngine:
    """A session of lazygguf, read as ``LazyModel.eval`` reads."""

    def __init__(self, context: TokenContext) -> None:
        self._context = context
        self.reset, self.cancel, self.close = context.reset, context.cancel, context.close

    def read(self, ids: Sequence[int], n_asked: int = 0) -> None:
        end = self._context.n_tokens + len(ids)
        self._context.append(Prompt(ids, (end - n_asked, end) if n_asked else None))

    def logits(self) -> Logits:
        logits = self._context.logits()
        if logits is None:
            raise LazyError("no logits: nothing was read")
        return logits

    def counts(self) -> Counts:
        stats = self._context.stats
        share = stats.token_share + stats.draft_share
        return Counts(share, stats.kv_bytes, stats.aux_bytes, stats.draft_s, stats.draft_share)


class LlamaCppEngine:
    """llama-cpp-python's ``Llama.eval``.

    Its n_batch is n_ubatch, as is its default, so that Ctrl-C waits for one ubatch at most.
    """

    def __init__(self, path: str, settings: Settings) -> None:
        self._model: Any = llama_cpp.Llama(
            path,
            n_ctx=settings.n_ctx,
            n_batch=settings.n_ubatch,
            n_ubatch=settings.n_ubatch,
            n_threads=settings.n_threads,
            n_threads_batch=settings.n_threads,
            n_gpu_layers=layer_count(settings.n_gpu_layers),
            flash_attn=True,
            verbose=False,
        )
        self._n_vocab = self._model.n_vocab()
        self.reset, self.close = self._model.reset, self._model.close

    def read(self, ids: Sequence[int], n_asked: int = 0) -> None:
        self._model.eval(ids)
        llama_cpp.llama_synchronize(self._model.ctx)  # a GPU may still be at work

    def logits(self) -> Logits:
        pointer = llama_cpp.llama_get_logits_ith(self._model.ctx, -1)
        return np.array(np.ctypeslib.as_array(pointer, (self._n_vocab,)), np.float32)

    def counts(self) -> Counts:
        return Counts(1.0, None, None)

    def cancel(self) -> None:
        pass


AnyEngine = Union[Engine, PeerProcess]


@contextlib.contextmanager
def open_engines(
    path: str, contenders: Sequence[Contender], settings: Settings
) -> Iterator[dict[Contender, AnyEngine]]:
    """Opens every contender, in order, for the block.

    Raises:
        LazyError, ValueError, OSError, MemoryError: an engine cannot be opened; its own words say why.
    """
    with contextlib.ExitStack() as stack:
        options, parts = settings.options(), None
        placed_for = next((c.schedule for c in contenders if c.schedule is not None), None)
        engines: dict[Contender, Any] = {}
        for contender in contenders:
            if contender.engine == LLAMA_CPP:
                engines[contender] = LlamaCppEngine(path, settings)
            elif contender.engine == IK:
                engines[contender] = _open_peer(path, settings)
            else:
                parts = parts or stack.enter_context(ModelParts(path, options, placed_for))
                engines[contender] = LazyEngine(parts.context(contender.schedule, options.draft is not None))
            stack.callback(engines[contender].close)
        yield engines


def _open_peer(path: str, settings: Settings) -> PeerProcess:
    process = PeerProcess(settings.peer_python)
    try:
        process.open(
            path,
            n_ctx=settings.n_ctx,
            n_ubatch=settings.n_ubatch,
            n_threads=settings.n_threads,
            flash_attn=settings.peer_flash_attn,
        )
    except BaseException:
        process.close()
        raise
    return process
