"""The measurement itself: one run of one engine, runs that take turns, ratios of pairs.

A run reads the prompt, samples a token greedily, and reads n more tokens one at a time. Those are the text's own
next tokens (teacher forcing), not sampled ones: so every engine does the same work, on text that goes on as text
does, and a schedule that changes the answer cannot make its own decoding shorter or easier.

Tokenizing is not in the times, as in llama-bench: it is the same for all.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Callable, NamedTuple, Optional, TypeVar

import numpy as np

from .engines import Engine, Logits
from .text import Script

Clock = Callable[[], float]
Turn = TypeVar("Turn")

HASH_DIGITS = 12


@dataclass(frozen=True)
class Sample:
    """One run, in seconds.

    Attributes:
        prefill_s: reading the prompt, to the moment when the last token's logits are there.
        ttft_s: the same and the first sampled token: from here on an engine decodes.
        decode_s: reading the tokens after the prompt, one at a time, logits ready after each.
        token_share: share of the dense work that the prompt took, a draft's work included.
        kv_bytes, aux_bytes: held at the end; None where the engine does not tell.
        logits_hash: of the logits after the prompt.
        draft_s: the part of ``prefill_s`` in which a draft read.
        draft_share: the part of ``token_share`` that is its work.
    """

    prefill_s: float
    ttft_s: float
    decode_s: float
    token_share: float
    kv_bytes: Optional[int]
    aux_bytes: Optional[int]
    logits_hash: str
    draft_s: float = 0.0
    draft_share: float = 0.0

    @property
    def total_s(self) -> float:
        """Prompt, first token and all tokens after it."""
        return self.ttft_s + self.decode_s


class Spread(NamedTuple):
    """Of some runs."""

    median: float
    least: float
    most: float


def measure(engine: Engine, script: Script, clock: Clock = time.perf_counter) -> Sample:
    """One run: the prompt is read at once, the tokens after it one at a time."""
    engine.reset()
    begin = clock()
    engine.read(script.ids[: script.n_prompt], script.n_asked)
    read = clock()
    logits = engine.logits()
    int(np.argmax(logits))  # what greedy sampling is
    sampled = clock()
    counts = engine.counts()
    decode_begin = clock()
    for token in script.ids[script.n_prompt :]:
        engine.read([token])
    end = clock()
    kv_bytes, aux_bytes = engine.counts()[1:3]
    engine.reset()  # gives the memory back before another engine's turn
    return Sample(
        prefill_s=read - begin,
        ttft_s=sampled - begin,
        decode_s=end - decode_begin,
        token_share=counts.token_share,
        kv_bytes=kv_bytes,
        aux_bytes=aux_bytes,
        logits_hash=logits_hash(logits),
        draft_s=counts.draft_s,
        draft_share=counts.draft_share,
    )


def interleave(
    engines: Mapping[Turn, Engine],
    script: Script,
    repeats: int,
    on_turn: Callable[[Turn], None] = lambda turn: None,
    clock: Clock = time.perf_counter,
) -> dict[Turn, list[Sample]]:
    """Runs of each engine in turn, A B A B, after a warm-up of each that does not count.

    A machine that slows down meanwhile slows all of them.
    """
    samples: dict[Turn, list[Sample]] = {turn: [] for turn in engines}
    for repeat in range(-1, repeats):
        for turn, engine in engines.items():
            on_turn(turn)
            sample = measure(engine, script, clock)
            if repeat >= 0:
                samples[turn].append(sample)
    return samples


def logits_hash(logits: Logits) -> str:
    """A short hash of the logits' bits, unrounded: equal hashes are equal to the last bit."""
    data = np.ascontiguousarray(logits, dtype="<f4").tobytes()
    return hashlib.sha256(data).hexdigest()[:HASH_DIGITS]


def spread(values: Sequence[float]) -> Spread:
    """Median, least and most."""
    return Spread(median(values), min(values), max(values))


def pair_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How many times faster ours is: the median over the pairs of one round."""
    return median(t / o for o, t in zip(ours, theirs))
