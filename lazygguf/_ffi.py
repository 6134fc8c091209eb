"""The binding to the native core: handles become classes, status codes become exceptions.

Owns every call into ``lazygguf._native``; nothing else imports it. Knows nothing about text, chat or sampling.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, NamedTuple, Optional, Union

import llama_cpp  # noqa: F401  loads the ggml libraries that the extension shares with llama.cpp
import numpy as np
import numpy.typing as npt

from ._native import ffi, lib
from .errors import Cancelled, ContextFullError, LazyError, ModelFileError, UnsupportedModelError
from .rpc import check_server
from .schedule import QUESTION, KeepSchedule

ProgressCallback = Callable[[int, int], Any]

_KV_DTYPES = {"f16": lib.LAZY_KV_DTYPE_F16, "f32": lib.LAZY_KV_DTYPE_F32, "q8_0": lib.LAZY_KV_DTYPE_Q8_0}
_WEIGHTS = {
    "as-is": lib.LAZY_WEIGHTS_AS_IS,
    "fast": lib.LAZY_WEIGHTS_FAST,
    "force-bf16": lib.LAZY_WEIGHTS_FORCE_BF16,
    "force-matmul": lib.LAZY_WEIGHTS_FORCE_MATMUL,
}
_PLACEMENTS = {"work": lib.LAZY_PLACEMENT_WORK, "last": lib.LAZY_PLACEMENT_LAST}
_MAX_DEVICES = 256
GPU_LAYERS_AUTO: int = lib.LAZY_GPU_LAYERS_AUTO
_EXCEPTIONS = {
    lib.LAZY_STATUS_INVALID_ARGUMENT: ValueError,
    lib.LAZY_STATUS_BAD_FILE: ModelFileError,
    lib.LAZY_STATUS_UNSUPPORTED: UnsupportedModelError,
    lib.LAZY_STATUS_CONTEXT_FULL: ContextFullError,
    lib.LAZY_STATUS_NO_MEMORY: MemoryError,
    lib.LAZY_STATUS_CANCELLED: Cancelled,
    lib.LAZY_STATUS_BUSY: RuntimeError,
    lib.LAZY_STATUS_FAILED: LazyError,
}


def _text(pointer: Any) -> str:
    return bytes(ffi.string(pointer)).decode("utf-8", "replace")


def check(status: int) -> None:
    """Raises the exception that a status stands for, with the native core's message."""
    if status != lib.LAZY_STATUS_OK:
        raise _EXCEPTIONS.get(status, LazyError)(_text(lib.lazy_last_error()))


def _check_ggml_version() -> None:
    built, found = _text(lib.lazy_ggml_version_compiled()), _text(lib.lazy_ggml_version())
    if built != found:
        raise ImportError(
            f"lazygguf was built for ggml {built}, but the installed llama-cpp-python brings ggml {found}; "
            "reinstall lazygguf (pip install --force-reinstall lazygguf) or the llama-cpp-python it was built with"
        )


_check_ggml_version()


def ggml_version() -> str:
    """Version of the ggml library in this process."""
    return _text(lib.lazy_ggml_version())


def _path_bytes(path: Union[str, os.PathLike[str]]) -> bytes:
    """The path for C, after Python has said in its own exceptions what is wrong with it."""
    with open(path, "rb"):
        return os.fsencode(path)


class TensorInfo(NamedTuple):
    """A tensor of a file. ``ne`` is in ggml order: ``ne[0]`` is the contiguous dimension; offset in bytes."""

    name: str
    type_name: str
    ne: tuple[int, ...]
    offset: int
    n_bytes: int


class NativeFile:
    """A GGUF file whose container has been checked: metadata and tensor list, no weights.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: the path cannot be opened.
        ModelFileError: not a whole, well-formed GGUF file.
    """

    def __init__(self, path: Union[str, os.PathLike[str]]) -> None:
        out = ffi.new("lazy_file **")
        check(lib.lazy_file_open(out, _path_bytes(path)))
        self._file = ffi.gc(out[0], lib.lazy_file_free)
        self._metadata: Optional[dict[str, Any]] = None

    def __enter__(self) -> NativeFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the metadata."""
        if self._file is not None:
            ffi.release(self._file)
            self._file = None

    @property
    def _handle(self) -> Any:
        if self._file is None:
            raise RuntimeError("the file is closed")
        return self._file

    def check(self) -> None:
        """Checks all that loading a model checks, without reading weights.

        Raises:
            ModelFileError: a key, tensor or vocabulary is missing or impossible.
            UnsupportedModelError: a model of a kind that lazygguf does not run.
        """
        check(lib.lazy_file_check(self._handle))

    def lacking_kernels(self, device: str) -> list[str]:
        """Kinds of weights and operations of the model that a device has no kernel for; they stay on the CPU. The
        file must be one that ``check`` accepts."""
        return _text(lib.lazy_file_lacking(self._handle, device.encode())).splitlines()

    @property
    def size(self) -> int:
        """Size of the file, in bytes."""
        return int(lib.lazy_file_size(self._handle))

    @property
    def metadata(self) -> dict[str, Any]:
        """Every key-value pair; arrays are lists."""
        if self._metadata is None:
            n = lib.lazy_file_n_kv(self._handle)
            self._metadata = {_text(lib.lazy_file_key(self._handle, i)): self._value(i) for i in range(n)}
        return self._metadata

    @property
    def tensors(self) -> list[TensorInfo]:
        """Every tensor, in file order."""
        infos = []
        info = ffi.new("lazy_tensor_info *")
        for i in range(lib.lazy_file_n_tensors(self._handle)):
            lib.lazy_file_tensor(self._file, i, info)
            name, type_name = _text(info.name), _text(info.type_name).upper()
            infos.append(TensorInfo(name, type_name, tuple(info.ne), info.offset, info.n_bytes))
        return infos

    def _value(self, i: int) -> Any:
        kv_type = lib.lazy_file_kv_type(self._file, i)
        if kv_type != lib.LAZY_KV_TYPE_ARRAY:
            return self._element(kv_type, i, 0)
        element_type = lib.lazy_file_arr_type(self._file, i)
        return [self._element(element_type, i, j) for j in range(lib.lazy_file_arr_n(self._file, i))]

    def _element(self, kv_type: int, i: int, j: int) -> Any:
        if kv_type == lib.LAZY_KV_TYPE_STRING:
            return _text(lib.lazy_file_str(self._file, i, j))
        if kv_type in (lib.LAZY_KV_TYPE_FLOAT32, lib.LAZY_KV_TYPE_FLOAT64):
            return lib.lazy_file_f64(self._file, i, j)
        value = lib.lazy_file_i64(self._file, i, j)
        return bool(value) if kv_type == lib.LAZY_KV_TYPE_BOOL else value


class Device(NamedTuple):
    """A device of ggml's. ``type`` is "CPU", "GPU", "IGPU", "ACCEL" or "RPC"; memory in bytes."""

    name: str
    description: str
    type: str
    memory_free: int
    memory_total: int


def list_devices(rpc_servers: Sequence[str] = ()) -> list[Device]:
    """The devices of these servers (``"HOST:PORT"``), then those of this machine.

    Raises:
        LazyError: a server does not answer.
        ValueError: there are servers, and ggml was built without RPC.
    """
    servers = _checked_servers(rpc_servers)
    out, n = ffi.new(f"lazy_device_info[{_MAX_DEVICES}]"), ffi.new("int32_t *")
    check(lib.lazy_devices(out, _MAX_DEVICES, n, servers))
    return [
        Device(_text(d.name), _text(d.description), _text(d.type), int(d.memory_free), int(d.memory_total))
        for d in out[0 : min(n[0], _MAX_DEVICES)]
    ]


def serve_rpc(endpoint: str, devices: Optional[str], n_threads: int) -> None:
    """Lends devices of this machine to others, for as long as the process lives.

    Raises:
        LazyError: the address cannot be listened on.
        ValueError: there is no such device, or ggml was built without RPC.
    """
    check(lib.lazy_rpc_serve(endpoint.encode(), ffi.NULL if devices is None else devices.encode(), n_threads))


def has_rpc() -> bool:
    """Was ggml built with RPC?"""
    return int(lib.lazy_rpc_version()) >= 0


def _checked_servers(endpoints: Sequence[str]) -> Any:
    """The servers for C, each of which answers or is connected to already."""
    if not endpoints:
        return ffi.NULL
    for endpoint in endpoints:
        if has_rpc() and not lib.lazy_rpc_is_connected(endpoint.encode()):
            check_server(endpoint, lib.lazy_rpc_version())
    return ffi.new("char[]", ",".join(endpoints).encode())


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
        weights: ``"as-is"``, ``"fast"`` (a second form of the matrices for prompts, where this CPU gains by one), or
            ``"force-bf16"`` and ``"force-matmul"`` for tests.
        n_layer: layers that sessions will read, the first ones: only they get a second form. 0 is all.
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
        params.weights = _choice(_WEIGHTS, "weights", weights)
        params.n_layer = n_layer
        keep_alive = _set_placement(params, placement or Placement())
        out = ffi.new("lazy_model **")
        check(lib.lazy_model_load(out, _path_bytes(path), params))
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
        self.desc: str = _text(lib.lazy_model_desc(self._model))

    @property
    def lost_server(self) -> str:
        """``HOST:PORT`` of an RPC server that has closed the connection, "" where all stand."""
        return _text(lib.lazy_model_lost_server(self._model)) if self._model is not None else ""

    def close(self) -> None:
        """Frees the weights. RuntimeError while a session of the model is open."""
        if self._sessions:
            raise RuntimeError(f"{len(self._sessions)} sessions of this model are open; close them first")
        if self._model is not None:
            ffi.release(self._model)
            self._model = None


def _set_placement(params: Any, placement: Placement) -> list[Any]:
    """Fills the device fields of ``params``; what must stay alive while they are read."""
    servers = _checked_servers(placement.rpc_servers)
    devices = ffi.NULL if placement.devices is None else ffi.new("char[]", placement.devices.encode())
    schedule, keep_alive = _native_schedule(placement.schedule)
    params.devices, params.rpc_servers = devices, servers
    params.placement, params.schedule = _choice(_PLACEMENTS, "placement", placement.by), schedule
    params.n_ctx, params.n_ubatch = placement.n_ctx, placement.n_ubatch
    params.type_k, params.type_v = (
        _choice(_KV_DTYPES, "type_k", placement.type_k),
        _choice(_KV_DTYPES, "type_v", placement.type_v),
    )
    return [devices, servers, schedule, *keep_alive]


class StepStats(NamedTuple):
    """What the last eval did. Lists are by segment; K/V and aux bytes are those held now.

    ``h2d_bytes`` and ``d2h_bytes`` went from host memory to devices and back in that step.
    """

    n_tokens: int
    n_new: int
    n_computed: list[int]
    n_live: list[int]
    n_layers: list[int]
    n_revived: int
    kv_bytes: int
    aux_bytes: int
    h2d_bytes: int
    d2h_bytes: int


class AttentionRequest(NamedTuple):
    """Layers, ascending, whose attention is wanted: of every head and asking row, or means over them."""

    layers: tuple[int, ...]
    by_head: bool = False
    by_query: bool = False


class _Record(NamedTuple):
    out: npt.NDArray[np.float32]
    keep_alive: Any  # what C reads while it fills it


class _Progress:
    """Carries a Python callback, and the exception it raises, through C."""

    def __init__(self, callback: Optional[ProgressCallback]) -> None:
        self.callback = callback
        self.error: Optional[BaseException] = None

    def __call__(self, n_done: int, n_total: int) -> bool:
        if self.callback is not None:
            self.callback(n_done, n_total)
        return True


def _on_progress_error(exception: Any, error: BaseException, traceback: Any) -> bool:
    # also reached by KeyboardInterrupt, which Python delivers here while C reads a long prompt
    frame_locals = traceback.tb_frame.f_locals if traceback is not None else {}
    ffi.from_handle(frame_locals["user_data"]).error = error
    return False


@ffi.def_extern(error=False, onerror=_on_progress_error)  # type: ignore[untyped-decorator]
def lazy_on_progress(user_data: Any, n_done: int, n_total: int) -> bool:
    return bool(ffi.from_handle(user_data)(n_done, n_total))


def _native_schedule(schedule: Optional[KeepSchedule]) -> tuple[Any, list[Any]]:
    """The C struct, and what must stay alive while it is read."""
    if schedule is None:
        return ffi.NULL, []
    points = ffi.new("lazy_point[]", len(schedule.points))
    keep_alive = [points]
    for out, point in zip(points, schedule.points):
        out.il, out.keep, out.pool = point.il, point.keep, point.pool
        out.n_query = 0 if point.n_query == QUESTION else int(point.n_query)
        out.n_layers, out.mass, out.keep_min = point.n_layers, point.mass, point.keep_min
        out.query_max = point.query_max
        if point.layer_heads is not None:
            layers = ffi.new("int32_t[]", [il for il, _ in point.layer_heads])
            heads = ffi.new("int32_t[]", [head for _, head in point.layer_heads])
            keep_alive += [layers, heads]
            out.heads, out.head_layers, out.n_heads = heads, layers, len(point.layer_heads)
    native = ffi.new("lazy_schedule *")
    native.version, native.points, native.n_points = lib.LAZY_VERSION, points, len(schedule.points)
    native.n_sink, native.min_prompt, native.max_revive = (
        schedule.n_sink,
        schedule.min_prompt,
        schedule.max_revive,
    )
    native.revive_margin = schedule.revive_margin
    native.decode_cached, native.dense_unasked = schedule.decode_cached, schedule.dense_unasked
    return native, keep_alive


class NativeSession:
    """One conversation on a model: KV cache, aux cache and keep schedule. One thread at a time.

    Args:
        model: the weights.
        n_ctx: tokens the session can hold; 0 is the model's training length.
        n_ubatch: rows per graph.
        n_threads: threads for one row (decode).
        n_threads_batch: threads for more rows (prefill); None is ``n_threads``.
        type_k, type_v: ``"f16"``, ``"f32"`` or ``"q8_0"``.
        n_layer: layers read; 0 is all. Fewer give attention but no logits, and take no schedule.
        schedule: None runs dense.

    Raises:
        ValueError: a value is out of range for the model.
        MemoryError: the caches cannot be allocated.
    """

    def __init__(
        self,
        model: NativeModel,
        n_ctx: int = 0,
        n_ubatch: int = 512,
        n_threads: int = 1,
        n_threads_batch: Optional[int] = None,
        type_k: str = "f16",
        type_v: str = "f16",
        schedule: Optional[KeepSchedule] = None,
        n_layer: int = 0,
    ) -> None:
        if model._model is None:
            raise RuntimeError("the model is closed")
        params = ffi.new("lazy_session_params *")
        lib.lazy_session_params_init(params)
        params.n_ctx, params.n_ubatch, params.n_threads = n_ctx, n_ubatch, n_threads
        params.n_threads_batch = n_threads if n_threads_batch is None else n_threads_batch
        params.type_k = _choice(_KV_DTYPES, "type_k", type_k)
        params.type_v = _choice(_KV_DTYPES, "type_v", type_v)
        params.n_layer = n_layer
        native, keep_alive = _native_schedule(schedule)
        out = ffi.new("lazy_session **")
        check(lib.lazy_session_new(out, model._model, params, native))
        del keep_alive
        self._session = ffi.gc(out[0], lib.lazy_session_free)
        self._model = model  # sessions point into it
        model._sessions.add(self)
        self.n_ctx: int = lib.lazy_session_n_ctx(self._handle)
        self.notes: str = _text(lib.lazy_session_notes(self._handle))

    @property
    def _handle(self) -> Any:
        if self._session is None:
            raise RuntimeError("the session is closed")
        return self._session

    def eval(
        self,
        ids: Sequence[int],
        query_span: Optional[tuple[int, int]] = None,
        progress: Optional[ProgressCallback] = None,
        scores: Optional[npt.NDArray[np.float32]] = None,
        attention: Optional[AttentionRequest] = None,
        protect: Sequence[int] = (),
    ) -> Optional[npt.NDArray[np.float32]]:
        """Reads tokens after what the session holds. On any failure the session is as it was before.

        Args:
            ids: token ids, (n,).
            query_span: positions [begin, end) of the question, for pruning points whose ``n_query`` is "question".
            progress: called after every ubatch with tokens read and tokens to read; what it raises is raised here.
            scores: for a pruning point before layer 0, one for each token in the context, old and new, (n_tokens,);
                higher is kept. inf: read in any case. NaN: a new token goes on, an old one stays as it was. None: all
                new tokens go on.
            protect: positions that are never pruned, in this and later steps; ascending.
            attention: what the rows of ``query_span``, which must be new, look at; only without a schedule.

        Returns:
            None, or the attention that was asked for, float32: by head (n_layers, n_query, n_head, n_tokens), by query
            (n_layers, n_query, n_tokens), else the mean over heads and asking rows (n_layers, n_tokens).

        Raises:
            ValueError: no token, an id outside the vocabulary, or scores or layers that do not fit.
            ContextFullError: the tokens do not fit.
            Cancelled: ``cancel()`` was called.
            RuntimeError: another thread is inside this session.
            LazyError: the weights give NaN or Inf, or the backend failed.
        """
        tokens = _token_array(ids)
        carrier = _Progress(progress)
        handle = ffi.new_handle(carrier)
        params = ffi.new("lazy_eval_params *")
        lib.lazy_eval_params_init(params)
        params.progress, params.user_data = lib.lazy_on_progress, handle
        if query_span is not None:
            params.query_begin, params.query_end = query_span
        if scores is not None:
            scores = np.ascontiguousarray(scores, dtype=np.float32)
            params.scores, params.n_scores = ffi.cast("const float *", ffi.from_buffer(scores)), scores.size
        record = None if attention is None else self._record(attention, params, tokens.size)
        protected = np.ascontiguousarray(protect, dtype=np.int32)
        params.protect, params.n_protect = ffi.cast("const int32_t *", ffi.from_buffer(protected)), protected.size
        pointer = ffi.cast("const int32_t *", ffi.from_buffer(tokens))
        status = lib.lazy_session_eval(self._handle, pointer, tokens.size, params)
        if carrier.error is not None:
            raise carrier.error
        check(status)
        return None if record is None else record.out

    def _record(self, attention: AttentionRequest, params: Any, n_new: int) -> _Record:
        n_query = max(0, params.query_end - params.query_begin)
        rows = (n_query, self._model.n_head)[: 2 if attention.by_head else int(attention.by_query)]
        out = np.empty((len(attention.layers), *rows, self.n_tokens + n_new), np.float32)
        layers, native = ffi.new("int32_t[]", list(attention.layers)), ffi.new("lazy_attention *")
        native.layers, native.n_layers = layers, len(attention.layers)
        native.by_head, native.by_query = attention.by_head, attention.by_query
        native.out, native.n_out = ffi.cast("float *", ffi.from_buffer(out)), out.size
        params.attention = native
        return _Record(out, (layers, native))

    def logits(self) -> Optional[npt.NDArray[np.float32]]:
        """Logits of the newest token, (n_vocab,) float32, a copy; None before the first eval and after a trim."""
        pointer = lib.lazy_session_logits(self._handle)
        if pointer == ffi.NULL:
            return None
        buffer = ffi.buffer(pointer, self._model.n_vocab * 4)
        return np.array(np.frombuffer(buffer, dtype=np.float32))

    @property
    def n_tokens(self) -> int:
        """Tokens in the context."""
        return int(lib.lazy_session_n_tokens(self._handle))

    def reset(self) -> None:
        """Forgets everything and gives the memory back."""
        check(lib.lazy_session_reset(self._handle))

    def trim(self, n_tokens: int) -> None:
        """Keeps the first ``n_tokens`` tokens, forgets the rest."""
        check(lib.lazy_session_trim(self._handle, n_tokens))

    def forget(self, positions: npt.ArrayLike) -> None:
        """Gives the K/V rows of old tokens back: they wait unread, until scores want them.

        Args:
            positions: not the newest token's.

        Raises:
            ValueError: there is no such token, or the schedule has no pruning point before layer 0.
        """
        given = np.ascontiguousarray(positions, dtype=np.int32)
        check(lib.lazy_session_forget(self._handle, ffi.cast("const int32_t *", ffi.from_buffer(given)), given.size))

    def cancel(self) -> None:
        """Stops the eval that runs in another thread; that eval raises ``Cancelled``."""
        lib.lazy_session_cancel(self._handle)

    def stats(self) -> StepStats:
        """What the last eval did."""
        s = ffi.new("lazy_stats *")
        lib.lazy_session_stats(self._handle, s)
        n = s.n_segments
        computed, live, layers = (list(field[0:n]) for field in (s.n_computed, s.n_live, s.n_layers))
        sizes = s.kv_bytes, s.aux_bytes, s.h2d_bytes, s.d2h_bytes
        return StepStats(s.n_tokens, s.n_new, computed, live, layers, s.n_revived, *sizes)

    def live(self, segment: int) -> npt.NDArray[np.int32]:
        """Positions live in a segment during the last eval, ascending, (n,) int32."""
        return self._positions(lib.lazy_session_live, segment)

    def cached(self, segment: int) -> npt.NDArray[np.int32]:
        """Positions with K/V rows in a segment, ascending, (n,) int32."""
        return self._positions(lib.lazy_session_cached, segment)

    def scores(self, segment: int) -> Optional[npt.NDArray[np.float32]]:
        """Scores at the end of a segment in the last eval, before pooling, by position, (n_tokens,) float32.

        NaN where a position was not live; None where nothing was scored.
        """
        out = np.empty(self.n_tokens, dtype=np.float32)
        pointer = ffi.cast("float *", ffi.from_buffer(out))
        n = lib.lazy_session_scores(self._handle, segment, pointer)
        return out if n == out.size and n > 0 else None

    def _positions(self, read: Any, segment: int) -> npt.NDArray[np.int32]:
        out = np.empty(self.n_tokens, dtype=np.int32)
        n = read(self._handle, segment, ffi.cast("int32_t *", ffi.from_buffer(out)))
        return out[:n]

    def close(self) -> None:
        """Frees the caches. RuntimeError while another thread is inside."""
        if self._session is not None:
            if not self._model.lost_server:  # else the memory stays: ggml would end the process
                check(lib.lazy_session_reset(self._session))
            ffi.release(self._session)
            self._session = None
            self._model._sessions.discard(self)


def _token_array(ids: Sequence[int]) -> npt.NDArray[np.int32]:
    """The ids for C; one that does not fit into 32 bits must not become another one."""
    wide = np.asarray(ids)
    limits = np.iinfo(np.int32)
    if wide.size and not (limits.min <= int(wide.min()) and int(wide.max()) <= limits.max):
        raise ValueError(f"token ids reach from {wide.min()} to {wide.max()}, expected ids of the vocabulary")
    return np.ascontiguousarray(wide, dtype=np.int32)


def _choice(values: dict[str, int], name: str, value: str) -> int:
    if value not in values:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(values)}")
    return int(values[value])
