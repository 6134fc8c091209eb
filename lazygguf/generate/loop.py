"""The generation loop: read the prompt, choose a token, read it, choose the next.

Owns the loop itself (``decode``), sampled and greedy; when a generation ends, its times, and the log-probabilities of
its tokens. It gives pieces of text; how they look as OpenAI results is ``openai.py``'s.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Callable, NamedTuple, Optional

import numpy as np
import numpy.typing as npt

from ..read.context import TokenContext
from ..read.prompt import Prompt
from ..text.grammar import GrammarLike
from ..text.stream import TextStream
from ..text.tokenizer import Tokenizer
from .sampling import Sampler, SamplingParams

Logits = npt.NDArray[np.float32]
LogitsProcessor = Callable[[npt.NDArray[np.int32], Logits], Logits]
StoppingCriterion = Callable[[npt.NDArray[np.int32], Logits], bool]


@dataclass(frozen=True)
class Request:
    """What to generate.

    Attributes:
        prompt: what is read first.
        max_tokens: most tokens of the answer; None is until the context is full.
        sampling: how tokens are chosen.
        grammar: what the text must match.
        stops: texts that end the generation.
        n_logprobs: alternatives to report with each token's log-probability; None reports none.
        logits_processors: called in turn with the ids so far and the logits, before sampling; give new
            logits.
        stopping_criteria: called with the ids so far and the logits; any that is true ends the generation.
        started: ``time.perf_counter()`` when the call began.
    """

    prompt: Prompt
    max_tokens: Optional[int] = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    grammar: Optional[GrammarLike] = None
    stops: Sequence[str] = ()
    n_logprobs: Optional[int] = None
    logits_processors: Sequence[LogitsProcessor] = ()
    stopping_criteria: Sequence[StoppingCriterion] = ()
    started: float = field(default_factory=time.perf_counter)


class Alternative(NamedTuple):
    """A token that could be chosen.

    Attributes:
        token: its id.
        data: its bytes, possibly a part of a character; a control token's are its name.
        logprob: its log-probability before any sampling rule.
    """

    token: int
    data: bytes
    logprob: float


@dataclass(frozen=True)
class TokenLogprob:
    """A sampled token's log-probability.

    Attributes:
        chosen: the token.
        top: the most probable ones, most probable first.
        offset: characters of the answer before it; of a token that begins inside a character, before that one.
    """

    chosen: Alternative
    top: list[Alternative]
    offset: int = 0


@dataclass(frozen=True)
class Piece:
    """What one token added.

    Attributes:
        token: its id.
        text: the text that became certain, possibly none.
        logprobs: of the tokens whose text became certain, where asked for. A token that ends the generation, and those
            that lie behind a stop string's begin, have none.
        finish_reason: ``"stop"`` or ``"length"`` on the last piece, else None.
        counts: it is part of the answer (an end-of-generation token is not).
    """

    token: int
    text: str
    logprobs: Sequence[TokenLogprob] = ()
    finish_reason: Optional[str] = None
    counts: bool = True


def generate(context: TokenContext, tokenizer: Tokenizer, request: Request) -> Generator[Piece, None, None]:
    """Runs a request; the last piece has a finish reason.

    Closing the generator at any point leaves the context at the last whole step.

    Raises:
        RuntimeError: the context was used for something else between two pieces.
        Cancelled: ``cancel()`` was called.
    """
    stream = TextStream(request.stops)
    pending = PendingLogprobs()
    n_room = context.n_ctx - len(request.prompt.ids)
    n_most = n_room if request.max_tokens is None else min(request.max_tokens, n_room)
    ids = HookIds(context)
    with Sampler(tokenizer, request.sampling, request.grammar) as sampler:
        steps = sample_tokens(context, sampler, request, ids)
        with contextlib.closing(steps):
            for n, (token, logits) in enumerate(steps, start=1):
                if tokenizer.is_eog(token):
                    yield Piece(token, stream.finish(), pending.rest(), finish_reason="stop", counts=False)
                    return
                data = tokenizer.piece(token)
                if request.n_logprobs is not None:
                    found = token_logprob(tokenizer, logits, token, request.n_logprobs)
                    pending.add(replace(found, offset=stream.offset_of(data)))
                text = stream.feed(data)
                reason = _finish_reason(stream, request, ids, token, logits, n >= n_most)
                certain = pending.before(stream.n_certain)
                if reason:
                    rest = [] if stream.stopped else pending.rest()
                    yield Piece(token, text + stream.finish(), [*certain, *rest], reason)
                    return
                yield Piece(token, text, certain)


class PendingLogprobs:
    """Log-probabilities of tokens whose text a stop string may still take away."""

    def __init__(self) -> None:
        self._held: list[TokenLogprob] = []

    def add(self, found: TokenLogprob) -> None:
        """Adds the newest token's."""
        self._held.append(found)

    def before(self, n_certain: int) -> list[TokenLogprob]:
        """Takes those whose tokens begin in the first ``n_certain`` characters."""
        n = next((i for i, found in enumerate(self._held) if found.offset >= n_certain), len(self._held))
        taken, self._held = self._held[:n], self._held[n:]
        return taken

    def rest(self) -> list[TokenLogprob]:
        """Takes all."""
        taken, self._held = self._held, []
        return taken


class HookIds:
    """A context's ids as logits processors and stopping criteria get them.

    They are gathered as they come, not made anew from the whole context for every token. Nothing may be taken out of
    the context meanwhile.
    """

    def __init__(self, context: TokenContext) -> None:
        self._context = context
        self._ids = np.empty(0, np.int32)
        self._n = 0

    def array(self, *more: int) -> npt.NDArray[np.int32]:
        """All ids, and these after them, a copy."""
        new = self._context.ids_from(self._n)
        n = self._n + len(new)
        if n + len(more) > len(self._ids):
            self._ids = np.resize(self._ids, self._context.n_ctx + len(more))
        self._ids[self._n : n + len(more)] = [*new, *more]
        self._n = n
        return np.array(self._ids[: n + len(more)])


def sample_tokens(
    context: TokenContext, sampler: Sampler, request: Request, ids: Optional[HookIds] = None
) -> Generator[tuple[int, Logits], None, None]:
    """Reads the prompt, then samples until the context is full: each token with the logits it was chosen from.

    A token is read into the context when the next one is asked for. Keeps the counts and times of ``context.stats``.
    ``ids`` are those that logits processors get.
    """
    hook_ids = HookIds(context) if ids is None else ids

    def choose(logits: Logits) -> int:
        token = sampler.sample(_process(request, hook_ids, logits))
        sampler.accept(token)
        return token

    generation = context.begin()
    context.read_prompt(request.prompt)
    busy_s = 0.0
    begin = time.perf_counter()
    for token, logits in decode(context, choose, generation):
        now = time.perf_counter()
        stats = context.stats
        stats.n_decoded += 1
        if stats.n_decoded == 1:
            stats.ttft_s = now - request.started
        else:
            busy_s += now - begin
            stats.decode_tps = (stats.n_decoded - 1) / busy_s if busy_s > 0 else 0.0
        yield token, logits
        begin = time.perf_counter()
        context.check(generation)
        if context.n_tokens >= context.n_ctx:
            return


def decode(
    context: TokenContext, choose: Callable[[Logits], int], generation: Optional[int] = None
) -> Generator[tuple[int, Logits], None, None]:
    """Chooses a token, reads it, chooses the next, without end: each token with the logits it was chosen from.

    A token is read into the context when the next one is asked for.

    Args:
        context: holds a prompt.
        choose: gives a token from logits (n_vocab,), which it may change. Teacher forcing is an iterator's ``next``.
        generation: the number that ``context.begin`` gave; None begins a generation.

    Raises:
        ContextFullError: the context is full.
        RuntimeError: the context was used for something else between two tokens.
        Cancelled: ``cancel()`` was called.
    """
    if generation is None:
        generation = context.begin()
    while True:
        logits = context.logits()
        if logits is None:
            raise RuntimeError("the context holds no logits: it was reset while a generation was under way")
        token = choose(logits)
        yield token, logits
        context.step(token, generation)


def greedy(
    context: TokenContext, n_most: int, is_end: Callable[[int], bool], n_least: int = 0
) -> Generator[int, None, None]:
    """The most probable tokens after what the context holds, one at a time; errors as ``decode``.

    Args:
        context: holds a prompt.
        n_most: tokens to give at most.
        is_end: whether an answer ends before this token.
        n_least: among the first ``n_least`` tokens none that ends is chosen.
    """
    n_said = 0

    def choose(logits: Logits) -> int:
        token = int(np.argmax(logits))
        while n_said < n_least and is_end(token):
            logits[token] = -np.inf
            token = int(np.argmax(logits))
        return token

    with contextlib.closing(decode(context, choose)) as steps:
        for token, _ in steps:
            if n_most == 0 or is_end(token):
                return
            yield token
            n_said += 1
            if n_said == n_most:
                return


def log_softmax(logits: Logits) -> npt.NDArray[np.float64]:
    """Log-probabilities of logits (n_vocab,), float64."""
    shifted = logits.astype(np.float64) - float(logits.max())
    return np.asarray(shifted - np.log(np.exp(shifted).sum()), np.float64)


def token_logprob(tokenizer: Tokenizer, logits: Logits, token: int, n_top: int) -> TokenLogprob:
    """Log-probabilities of a token and of the ``n_top`` most probable ones, most probable first."""
    logprobs = log_softmax(logits)
    n_top = min(n_top, len(logprobs))
    top = np.argpartition(-logprobs, n_top - 1)[:n_top] if n_top else np.empty(0, np.int64)
    top = top[np.argsort(-logprobs[top], kind="stable")]

    def entry(i: int) -> Alternative:
        return Alternative(i, tokenizer.piece(i, special=True), float(logprobs[i]))

    return TokenLogprob(entry(token), [entry(int(i)) for i in top])


def _process(request: Request, ids: HookIds, logits: Logits) -> Logits:
    if not request.logits_processors:
        return logits
    read = ids.array()
    scores: Logits = logits.copy()
    for process in request.logits_processors:
        given = process(read, scores)
        try:
            scores = np.asarray(given, np.float32)
        except (TypeError, ValueError):
            scores = np.empty(0, np.float32)
        if scores.shape != logits.shape:
            raise ValueError(f"logits_processor gave {repr(given)[:60]}, expected logits of the shape {logits.shape}")
    return scores


def _finish_reason(
    stream: TextStream, request: Request, ids: HookIds, token: int, logits: Logits, is_last: bool
) -> Optional[str]:
    if stream.stopped:
        return "stop"
    if request.stopping_criteria:
        read = ids.array(token)
        if any(criterion(read, logits) for criterion in request.stopping_criteria):
            return "stop"
    return "length" if is_last else None
