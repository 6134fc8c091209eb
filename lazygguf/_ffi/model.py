"""The weights of a model, and which devices run its layers."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional, Union

from ..schedule.keep_schedule import KeepSchedule
from .devices import checked_servers
from .library import KV_DTYPES, check, choice, ffi, lib, path_bytes, text
from .native_schedule import native_schedule

if TYPE_CHECKING:
    from .session import NativeSession

_WEIGHTS = {
    "as-is": lib.LAZY_WEIGHTS_AS_IS,
    "fast": lib.LAZY_WEIGHTS_FAST,
}
_PLACEMENTS = {"work": lib.LAZY_PLACEMENT_WORK, "last": lib.LAZY_PLACEMENT_LAST}
GPU_LAYERS_AUTO: int = lib.LAZY_GPU_LAYERS_AUTO


@dataclass(frozen=True)
class Placement:
    """Which devices run which layers.

    Attributes:
        devices: names with commas; None is every GPU.
        rpc_servers: ``"HOST:PORT"`` of servers that lend theirs, which come before the local ones.
        by: ``"work"``, the layers that see the most tokens, or ``"last"``, the last layers as llama.cpp does.
        schedule: what the sessions will be given, which says how many tokens a layer sees; None is dense.
        n_ctx, n_ubatch, type_k, type_v: what the sessions will be given; layers are placed where they fit with it.
    """

    devices: Optional[str] = None
    rpc_servers: Sequence[str] = ()
    by: str = "work"
    schedule: Optional[KeepSchedule] = None
    n_ctx: int = 0
    n_ubatch: int = 512
    type_k: str = "f16"
    type_v: str = "f16"


class NativeModel:
    """The weights of one model. Sessions keep it alive.

    Args:
        path: a GGUF file.
        n_gpu_layers: layers on GPU devices, the output layer among them; 0 none, -1 all, ``GPU_LAYERS_AUTO`` as many
            as fit into their free memory.
        use_mmap: map the file instead of reading it.
        weights: ``"as-is"`` (ggml's kernels) or ``"fast"`` (ours, where there is one for a matrix's type).
        n_layer: layers that sessions will read, the first ones: only their matrices are packed. 0 is all.
        placement: which devices, and which layers.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError, ModelFileError, UnsupportedModelError, MemoryError,
        ValueError: a GPU is asked for and ggml has none.
        LazyError: an RPC server does not answer.
    """

    def __init__(
        self,
        path: Union[str, os.PathLike[str]],
        n_gpu_layers: int = 0,
        use_mmap: bool = True,
        weights: str = "as-is",
        n_layer: int = 0,
        placement: Optional[Placement] = None,
    ) -> None:
        params = ffi.new("lazy_model_params *")
        lib.lazy_model_params_init(params)
        params.n_gpu_layers = n_gpu_layers
        params.use_mmap = use_mmap
        params.weights = choice(_WEIGHTS, "weights", weights)
        params.n_layer = n_layer
        keep_alive = _set_placement(params, placement or Placement())
        out = ffi.new("lazy_model **")
        check(lib.lazy_model_load(out, path_bytes(path), params))
        del keep_alive
        self._model = ffi.gc(out[0], lib.lazy_model_free)
        self._sessions: weakref.WeakSet[NativeSession] = weakref.WeakSet()
        self.n_vocab: int = lib.lazy_model_n_vocab(self._model)
        self.n_ctx_train: int = lib.lazy_model_n_ctx_train(self._model)
        self.n_layer: int = lib.lazy_model_n_layer(self._model)
        self.n_embd: int = lib.lazy_model_n_embd(self._model)
        self.n_head: int = lib.lazy_model_n_head(self._model)
        self.n_head_kv: int = lib.lazy_model_n_head_kv(self._model)
        self.n_embd_head: int = lib.lazy_model_n_embd_head(self._model)
        self.desc: str = text(lib.lazy_model_desc(self._model))

    @property
    def lost_server(self) -> str:
        """``HOST:PORT`` of an RPC server that has closed the connection, "" where all stand."""
        return text(lib.lazy_model_lost_server(self._model)) if self._model is not None else ""

    def close(self) -> None:
        """Frees the weights. RuntimeError while a session of the model is open."""
        if self._sessions:
            raise RuntimeError(f"{len(self._sessions)} sessions of this model are open; close them first")
        if self._model is not None:
            ffi.release(self._model)
            self._model = None


def _set_placement(params: Any, placement: Placement) -> list[Any]:
    """Fills the device fields of ``params``; what must stay alive while they are read."""
    servers = checked_servers(placement.rpc_servers)
    devices = ffi.NULL if placement.devices is None else ffi.new("char[]", placement.devices.encode())
    schedule, keep_alive = native_schedule(placement.schedule)
    params.devices, params.rpc_servers = devices, servers
    params.placement, params.schedule = choice(_PLACEMENTS, "placement", placement.by), schedule
    params.n_ctx, params.n_ubatch = placement.n_ctx, placement.n_ubatch
    params.type_k, params.type_v = (
        choice(KV_DTYPES, "type_k", placement.type_k),
        choice(KV_DTYPES, "type_v", placement.type_v),
    )
    return [devices, servers, schedule, *keep_alive]
