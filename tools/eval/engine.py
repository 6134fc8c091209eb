"""One model, read by many methods.

Owns the weights (loaded once), a context for each method, greedy answers, and what they took. It knows nothing of
tasks.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

from lazygguf.cli.terminal import interrupt_cancels
from lazygguf.generate.loop import Logits, decode, greedy
from lazygguf.model.options import ModelOptions
from lazygguf.model.parts import ModelParts
from lazygguf.read.attention import AttentionReader
from lazygguf.read.context import TokenContext
from lazygguf.read.prompt import Prompt
from lazygguf.text.asked import Asked
from lazygguf.text.tokenizer import Tokenizer
from lazygguf.threads import physical_cores

from ..schedule_options import ModelShape
from .methods import Method
from .prompts import Prompter, TaskPrompt

N_WARM_UP = 64  # tokens read before anything is timed
_HASHED_BYTES = 1 << 20


@dataclass(frozen=True)
class Answer:
    """What a method said and what it took."""

    pred: str  # the answer
    ttft_s: float  # seconds from the ids to the first token's choice
    decode_s: float  # seconds of the decode steps
    n_steps: int
    token_share: float  # share of the dense work of reading the prompt, the draft's work included
    revived: int  # tokens brought back, summed over the decode steps
    kept: list[int]  # tokens live in each segment when the prompt was read
    draft_s: float = 0.0  # seconds of the draft
    second_look: int = 0  # tokens that were read on top of the draft's choice
    sources: Optional[list[str]] = None  # the passages that the answer leaned on, where they are looked for


class Reader:
    """Reads prompts by one method."""

    def __init__(self, context: TokenContext, tokenizer: Tokenizer, method: Method, n_sources: int = 0) -> None:
        self._context, self._tokenizer, self.method = context, tokenizer, method
        self._n_sources = n_sources

    def answer(self, prompt: TaskPrompt) -> Answer:
        """The greedy answer; ends before an end-of-generation token, a stop text or ``max_tokens``.

        Raises:
            ContextFullError: the prompt and its answer do not fit.
            Cancelled, KeyboardInterrupt: interrupted.
        """
        with self._reading(prompt) as begin:
            is_end = functools.partial(self._ends, prompt)
            tokens = greedy(self._context, prompt.max_tokens, is_end, prompt.min_tokens)
            said = list(itertools.islice(tokens, 1))
            ttft_s = time.perf_counter() - begin
            said += tokens
            pred = self._tokenizer.detokenize(said).decode("utf-8", "replace")
            answer = self._result(pred, begin, ttft_s, min(len(said), prompt.max_tokens - 1))
            return replace(answer, sources=self._sources(prompt)) if self._n_sources else answer

    def follow(self, prompt: TaskPrompt, continuation: tuple[int, ...]) -> tuple[list[Logits], Answer]:
        """Logits (n_vocab,) from which each token of the continuation would be chosen, and what it took."""
        given = iter(continuation)
        with self._reading(prompt) as begin:
            with contextlib.closing(decode(self._context, lambda logits: next(given))) as steps:
                logits = [next(steps)[1]]
                ttft_s = time.perf_counter() - begin
                logits += [after for _, after in itertools.islice(steps, len(continuation) - 1)]
            return logits, self._result("", begin, ttft_s, len(continuation) - 1)

    def share(self, prompt: TaskPrompt) -> float:
        """Share of the dense work of reading a prompt, the draft's work included."""
        with self._reading(prompt):
            stats = self._context.stats
            return stats.token_share + stats.draft_share

    def warm_up(self, prompt: TaskPrompt) -> None:
        """Reads the begin of a prompt, so that the first one timed finds weights and buffers in memory."""
        self._context.reset()
        self._context.append(Prompt(prompt.ids[:N_WARM_UP]))
        self._context.reset()

    @contextlib.contextmanager
    def _reading(self, prompt: TaskPrompt) -> Iterator[float]:
        """Holds the prompt in the context, and gives when reading began; the context is empty again afterwards."""
        context = self._context
        context.reset()
        scores = self.method.scores(prompt)
        with interrupt_cancels(context.cancel):
            begin = time.perf_counter()
            context.append(prompt, scores)
            yield begin
        context.reset()

    def _result(self, pred: str, begin: float, ttft_s: float, n_steps: int) -> Answer:
        decode_s = time.perf_counter() - begin - ttft_s
        stats = self._context.stats  # of the reading; the steps since added what they revived
        share = stats.token_share + stats.draft_share
        drafted = stats.draft_s, stats.second_look
        return Answer(pred, ttft_s, decode_s, n_steps, share, stats.revived, list(stats.kept), *drafted)

    def _sources(self, prompt: TaskPrompt) -> list[str]:
        attended = self._context.attended(prompt)
        if attended is None:
            return []
        asked = Asked(prompt, turns=[{"role": "user", "content": prompt.content}])
        pieces = [self._tokenizer.piece(token, special=True) for token in prompt.ids]
        return [source.text for source in asked.sources(attended, pieces, self._n_sources)]

    def _ends(self, prompt: TaskPrompt, token: int) -> bool:
        if self._tokenizer.is_eog(token):
            return True
        return bool(prompt.stops) and any(
            stop.encode() in self._tokenizer.piece(token, special=False) for stop in prompt.stops
        )


class Engine:
    """A model file opened for evaluation. Use it as a context manager.

    Attributes:
        path: the file's.
        shape: what schedules are checked against.
        prompter: makes prompts.
        n_ctx: tokens a context can hold.
        fingerprint: what identifies the model, whatever its quantization.
        identity: the file's name, size and a hash of its begin and end: enough to tell models apart.
    """

    def __init__(self, path: str, options: ModelOptions, n_sources: int = 0) -> None:
        """Opens the file; ``keep`` of the options is not looked at, each method has its own.

        Args:
            path: a GGUF file.
            options: how it is opened.
            n_sources: passages looked for after each answer; 0 looks for none.

        Raises:
            OSError, ModelFileError, UnsupportedModelError, MemoryError: as ``LazyModel``.
        """
        self._parts = ModelParts(path, options)
        self.path = path
        self._options = options
        self._n_sources = n_sources
        file, weights = self._parts.file, self._parts.weights
        self.fingerprint = file.fingerprint
        has_draft = options.draft is not None
        self.shape = ModelShape(weights.n_layer, weights.n_head, file.metadata, file.shipped, has_draft, file.windowed)
        self.prompter = Prompter(self._parts.tokenizer, file.metadata)
        self.n_ctx = options.n_ctx or weights.n_ctx_train
        self.identity = _identity(Path(path))

    def reader(self, method: Method) -> Reader:
        """A reader with its own context on the shared weights."""
        with_draft = self._options.draft is not None and bool(method.draft)
        context = self._parts.context(method.schedule, with_draft, watched=self._n_sources > 0)
        return Reader(context, self._parts.tokenizer, method, self._n_sources)

    def attention_reader(self, n_ctx: int) -> AttentionReader:
        """Reads prompts of up to ``n_ctx`` tokens densely for the sake of attention; to be closed before the engine."""
        options = self._options
        n_threads = options.n_threads or physical_cores()
        return AttentionReader(self._parts.weights, n_ctx=n_ctx, n_ubatch=options.n_ubatch, n_threads=n_threads)

    @property
    def draft_identity(self) -> str:
        """The draft's file, how it scores and how much is read on top; "" without a draft."""
        if self._options.draft is None:
            return ""
        profile = json.dumps(self._parts.draft.profile.to_dict(), sort_keys=True)
        return f"{_identity(Path(str(self._options.draft)))} {profile} {self._options.second_look:g}"

    @property
    def settings(self) -> dict[str, Any]:
        """What decides times and, within rounding, answers."""
        options = self._options
        plain = {name: getattr(options, name) for name in ("n_ubatch", "n_gpu_layers", "weights", "type_k", "type_v")}
        placed = {name: getattr(options, name) for name in ("device", "rpc_servers") if getattr(options, name)}
        sources = {"n_sources": self._n_sources} if self._n_sources else {}
        return {"n_ctx": self.n_ctx, "n_threads": options.n_threads or physical_cores(), **plain, **placed, **sources}

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exc: object) -> None:
        self._parts.close()


def _identity(path: Path) -> str:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(_HASHED_BYTES)
        file.seek(max(0, size - _HASHED_BYTES))
        digest = hashlib.sha256(head + file.read(_HASHED_BYTES)).hexdigest()[:12]
    return f"{path.stem}-{size}-{digest}"
