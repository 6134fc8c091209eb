"""The peer ik_llama.cpp in a process of its own, run by the Python that has its wheel (``peer.py`` starts it).

Owns how the wheel is called: the model opened, a prompt read, tokens read one at a time, the clock. lazygguf is not
there: this file imports the standard library, NumPy and the wheel only. The wheel's own ``generate`` is not used, since
it goes through the vocabulary in Python for every token, which would count as the peer's time; what it calls is.

Jobs come as lines of JSON on stdin and answers go as lines of JSON to stdout, until stdin ends. What a job raises is
answered as ``{"error": ...}``.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import sys
import time
from importlib.metadata import version
from typing import Any, Optional

PACKAGE = "ik-llama-cpp-python"
_GGML_TYPE_F16 = 1


class Peer:
    """One open model."""

    def __init__(self, path: str, n_ctx: int, n_ubatch: int, n_threads: int, flash_attn: bool) -> None:
        from ik_llama_cpp import _ctypes_api, _internals

        self._api: Any = _ctypes_api
        self._batch_of: Any = _internals.make_batch_range
        self._model: Any = _internals.IkModel(path)
        params = self._api.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, n_ubatch, n_ubatch
        params.n_threads = params.n_threads_batch = n_threads
        params.type_k = params.type_v = _GGML_TYPE_F16
        params.flash_attn = flash_attn
        self._context = self._api.llama_init_from_model(self._model.model, params)
        if not self._context:
            raise RuntimeError(f"no context of {n_ctx} tokens")
        self._n_ubatch = n_ubatch

    def measure(self, ids: list[int], n_prompt: int) -> dict[str, Any]:
        """One run from an empty context, as ``timing.measure`` does it."""
        self._api.llama_kv_cache_clear(self._context)
        begin = time.perf_counter()
        for first in range(0, n_prompt, self._n_ubatch):
            self._read(ids[first : min(first + self._n_ubatch, n_prompt)], first)
        read = time.perf_counter()
        logits = self._logits()
        int(logits.argmax())
        sampled = time.perf_counter()
        for pos in range(n_prompt, len(ids)):
            self._read(ids[pos : pos + 1], pos)
        end = time.perf_counter()
        return {
            "prefill_s": read - begin,
            "ttft_s": sampled - begin,
            "decode_s": end - sampled,
            "logits": base64.b64encode(logits.astype("<f4").tobytes()).decode("ascii"),
        }

    def _read(self, ids: list[int], first: int) -> None:
        """Reads tokens that begin at a position; returns when the last one's logits are there."""
        batch = self._batch_of(ids, pos_start=first)
        status = self._api.llama_decode(self._context, batch)
        self._api.llama_batch_free(batch)
        if status != 0:
            raise RuntimeError(f"llama_decode gave {status} at token {first}")

    def _logits(self) -> Any:
        """A copy, (n_vocab,)."""
        import numpy as np

        pointer = self._api.llama_get_logits_ith(self._context, -1)
        return np.array(np.ctypeslib.as_array(pointer, (self._model.n_vocab,)), np.float32)


def facts() -> dict[str, Any]:
    """The wheel's version, and what the library says that it was compiled for."""
    from ik_llama_cpp import _ctypes_api

    system_info = _ctypes_api._lib.llama_print_system_info
    system_info.argtypes, system_info.restype = [], ctypes.c_char_p
    return {"version": version(PACKAGE), "system_info": system_info().decode("ascii", "replace")}


def answer(peer: Optional[Peer], job: dict[str, Any]) -> tuple[Optional[Peer], dict[str, Any]]:
    """Does a job; the open model and what to answer."""
    what = job.pop("do")
    if what == "facts":
        return peer, facts()
    if what == "open":
        return Peer(**job), {}
    if peer is None:
        raise RuntimeError("no model is open")
    return peer, peer.measure(**job)


def main() -> None:
    """Answers jobs until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what the library prints must not come between the answers
    peer: Optional[Peer] = None
    for line in sys.stdin:
        try:
            peer, found = answer(peer, json.loads(line))
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
