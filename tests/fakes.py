"""Stand-ins for the engine: a session and a tokenizer of bytes, whose next token is decided by a script.

Owns nothing of lazygguf; it mirrors what ``context.py`` and ``generation.py`` need, so that their tests run
without weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Callable, Optional

import numpy as np

EOG = 256
N_VOCAB = 257
N_LAYER = 4


class ByteTokenizer:
    """One token is one byte; token 256 ends a generation."""

    n_vocab = N_VOCAB
    add_bos = False

    def piece(self, token: int, special: bool = False) -> bytes:
        return bytes([token]) if token < EOG else b"<eog>" if special else b""

    def is_eog(self, token: int) -> bool:
        return token == EOG


class ScriptedSession:
    """Says the script's bytes, then the end token, after a prompt of any content."""

    def __init__(self, script: bytes, n_ctx: int = 64, n_prompt: Optional[int] = None) -> None:
        self.n_ctx = n_ctx
        self.script = [*script, EOG]
        self.n_prompt = n_prompt
        self.ids: list[int] = []
        self.evals: list[tuple[list[int], Any]] = []
        self.closed = False
        self.on_eval: Callable[[], None] = lambda: None
        self._has_logits = False
        self._marked = -1

    @property
    def n_tokens(self) -> int:
        return len(self.ids)

    def eval(
        self,
        ids: Sequence[int],
        query_span: Any = None,
        progress: Any = None,
        scores: Any = None,
        attention: Any = None,
        protect: Any = (),
    ) -> None:
        self.on_eval()
        if progress is not None:
            progress(len(ids), len(ids))
        self.evals.append(([int(token) for token in ids], query_span))
        if self.n_prompt is None or len(ids) > 1:
            self.n_prompt = len(self.ids) + len(ids)
            self._marked = -1
        self.ids.extend(int(token) for token in ids)
        self._has_logits = True

    def logits(self) -> Optional[np.ndarray]:
        if not self._has_logits:
            return None
        said = self.n_tokens - (self.n_prompt or 0)
        logits = np.zeros(N_VOCAB, np.float32)
        logits[self.script[min(said, len(self.script) - 1)]] = 20.0
        return logits

    def live(self, segment: int) -> np.ndarray:
        return np.arange(self.n_tokens, dtype=np.int32)

    def scores(self, segment: int) -> Optional[np.ndarray]:
        return None

    def asked_by(self, segment: int, asking: tuple[int, int]) -> Optional[np.ndarray]:
        return None

    def trim(self, n_tokens: int) -> None:
        if n_tokens < len(self.ids):
            self._has_logits = n_tokens == self._marked
        del self.ids[n_tokens:]

    def mark(self) -> None:
        self._marked = self.n_tokens

    def cached(self, segment: int) -> np.ndarray:
        return self.live(segment)

    def forget(self, positions: Any) -> None:
        pass

    def reset(self) -> None:
        self.trim(0)

    def tokens(self) -> np.ndarray:
        return np.asarray(self.ids, np.int32)

    def saved_bytes(self) -> int:
        return 4 * len(self.ids)

    def save(self, write: Callable[[memoryview], Any]) -> None:
        write(memoryview(self.tokens().tobytes()))

    def load(self, n_bytes: int, read_into: Callable[[memoryview], Any]) -> None:
        data = bytearray(n_bytes)
        read_into(memoryview(data))
        self.ids = np.frombuffer(bytes(data), np.int32).tolist()

    def cancel(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def stats(self) -> Any:
        n_new = len(self.evals[-1][0]) if self.evals else 0
        return SimpleNamespace(
            n_tokens=self.n_tokens,
            n_new=n_new,
            n_computed=[n_new, n_new // 2],
            n_live=[self.n_tokens, self.n_tokens // 2],
            n_layers=[N_LAYER // 2, N_LAYER // 2],
            n_revived=1,
            kv_bytes=100 * self.n_tokens,
            aux_bytes=10,
            h2d_bytes=0,
            d2h_bytes=0,
            n_submissions=1,
            n_waits=1,
        )
