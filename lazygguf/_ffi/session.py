"""Conversations: tokens in, logits, scores and attention out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, NamedTuple, Optional

import numpy as np
import numpy.typing as npt

from ..errors import ContextFullError, ModelFileError, SessionFileError
from ..schedule.keep_schedule import KeepSchedule
from . import forked
from .library import KV_DTYPES, check, choice, ffi, lib, text
from .model import NativeModel
from .native_schedule import native_schedule

ProgressCallback = Callable[[int, int], Any]


class StepStats(NamedTuple):
    """What the last eval did. Lists are by segment; K/V and aux bytes are those held now.

    ``h2d_bytes`` and ``d2h_bytes`` went from host memory to devices and back in that step. ``n_submissions`` graphs
    were given to the devices, and the host waited for them ``n_waits`` times.
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
    n_submissions: int
    n_waits: int


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


class _Bytes:
    """Carries a Python function that takes or gives bytes, and the exception it raises, through C."""

    def __init__(self, move: Callable[[memoryview], Any]) -> None:
        self.move = move
        self.error: Optional[BaseException] = None

    def __call__(self, data: Any, n: int) -> bool:
        self.move(memoryview(ffi.buffer(data, n)))
        return True

    def check(self, status: int) -> None:
        if self.error is not None:
            raise self.error
        check(status)


@ffi.def_extern(error=False, onerror=_on_progress_error)  # type: ignore[untyped-decorator]
def lazy_on_write(user_data: Any, data: Any, n: int) -> bool:
    return bool(ffi.from_handle(user_data)(data, n))


@ffi.def_extern(error=False, onerror=_on_progress_error)  # type: ignore[untyped-decorator]
def lazy_on_read(user_data: Any, out: Any, n: int) -> bool:
    return bool(ffi.from_handle(user_data)(out, n))


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
        params.type_k = choice(KV_DTYPES, "type_k", type_k)
        params.type_v = choice(KV_DTYPES, "type_v", type_v)
        params.n_layer = n_layer
        native, keep_alive = native_schedule(schedule)
        out = ffi.new("lazy_session **")
        check(lib.lazy_session_new(out, model._model, params, native))
        del keep_alive
        self._session = ffi.gc(out[0], lib.lazy_session_free)
        self._model = model  # sessions point into it
        model._sessions.add(self)
        self.n_ctx: int = lib.lazy_session_n_ctx(self._handle)
        self.notes: str = text(lib.lazy_session_notes(self._handle))

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

        def run() -> None:
            status = lib.lazy_session_eval(self._handle, pointer, tokens.size, params)
            if carrier.error is not None:
                raise carrier.error
            check(status)

        forked.compute(run, self.cancel)
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
        """Logits of the newest token, (n_vocab,) float32, a copy.

        None before the first eval, and after a trim that is not one to a mark.
        """
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

    def mark(self) -> None:
        """Remembers the state: a trim to this many tokens brings it back, with its logits.

        What was revived since then is forgotten, so that going on gives the same again. There is one mark. It lasts
        while single tokens are read, until a shorter trim, a forget or a reset.
        """
        check(lib.lazy_session_mark(self._handle))

    def forget(self, positions: npt.ArrayLike) -> None:
        """Gives the K/V rows of old tokens back: they wait unread, until scores want them.

        Args:
            positions: not the newest token's.

        Raises:
            ValueError: there is no such token, or the schedule has no pruning point before layer 0.
        """
        given = np.ascontiguousarray(positions, dtype=np.int32)
        check(lib.lazy_session_forget(self._handle, ffi.cast("const int32_t *", ffi.from_buffer(given)), given.size))

    def tokens(self) -> npt.NDArray[np.int32]:
        """The ids of the tokens in the context, (n_tokens,) int32."""
        out = np.empty(self.n_tokens, dtype=np.int32)
        lib.lazy_session_tokens(self._handle, ffi.cast("int32_t *", ffi.from_buffer(out)))
        return out

    def saved_bytes(self) -> int:
        """How many bytes ``save`` gives now."""
        out = ffi.new("int64_t *")
        check(lib.lazy_session_saved_bytes(out, self._handle))
        return int(out[0])

    def save(self, write: Callable[[memoryview], Any]) -> None:
        """Gives the whole session as bytes, for ``load`` of a session on the same weights with the same options.

        Args:
            write: called with the bytes, piece by piece, each valid during the call; what it raises is raised here.
        """
        carrier = _Bytes(write)
        handle = ffi.new_handle(carrier)
        carrier.check(lib.lazy_session_save(self._handle, lib.lazy_on_write, handle))

    def load(self, n_bytes: int, read_into: Callable[[memoryview], Any]) -> None:
        """Puts what ``save`` gave in the place of what the session holds. On any failure it is as it was.

        Args:
            n_bytes: how many there are.
            read_into: called to fill a buffer with the next bytes; what it raises is raised here.

        Raises:
            SessionFileError: the bytes are damaged, or of another model, schedule or cache type.
            ContextFullError: the tokens do not fit.
            MemoryError: there is no room for the rows beside those that the session holds now.
        """
        carrier = _Bytes(read_into)
        handle = ffi.new_handle(carrier)
        try:
            carrier.check(lib.lazy_session_load(self._handle, n_bytes, lib.lazy_on_read, handle))
        except ContextFullError:
            raise
        except (ModelFileError, ValueError) as error:
            if error is carrier.error:
                raise
            raise SessionFileError(error) from None

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
        counts = s.n_submissions, s.n_waits
        return StepStats(s.n_tokens, s.n_new, computed, live, layers, s.n_revived, *sizes, *counts)

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

    def asked_by(self, segment: int, asking: tuple[int, int]) -> Optional[npt.NDArray[np.float32]]:
        """Scores at the end of a segment as only some tokens ask, by position, (n_tokens,) float32.

        Args:
            segment: its number.
            asking: positions [begin, end). Those count that the pruning point remembers: the question's, and the newest
                token.

        Returns:
            0 where a position was not live; None where no such token is remembered, or nothing prunes there.
        """
        out, n_out = np.empty(self.n_tokens, dtype=np.float32), ffi.new("int32_t *")
        check(
            lib.lazy_session_asked_by(self._handle, segment, *asking, ffi.cast("float *", ffi.from_buffer(out)), n_out)
        )
        return out if n_out[0] else None

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
