"""The measurement itself: one run of one engine, runs that take turns, and what the runs of a contender come to.

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

from .contenders import IK, LAZYGGUF, LLAMA_CPP, Contender
from .engines import AnyEngine, Logits
from .peer import PeerProcess
from .text import Script

Clock = Callable[[], float]
Turn = TypeVar("Turn")

HASH_DIGITS = 12


@dataclass(frozen=True)
class Sample:
    """One run, in seconds."""

    prefill_s: float  # reading the prompt, to the moment when the last token's logits are there
    ttft_s: float  # the same and the first sampled token: from here on an engine decodes
    decode_s: float  # reading the tokens after the prompt, one at a time, logits ready after each
    token_share: float  # share of the dense work that the prompt took, a draft's work included
    kv_bytes: Optional[int]  # kv_bytes, aux_bytes: held at the end; None where the engine does not tell
    aux_bytes: Optional[int]
    logits_hash: str  # of the logits after the prompt
    draft_s: float = 0.0  # the part of prefill_s in which a draft read
    draft_share: float = 0.0  # the part of token_share that is its work

    @property
    def total_s(self) -> float:
        """Prompt, first token and all tokens after it."""
        return self.ttft_s + self.decode_s


class Spread(NamedTuple):
    """Of some runs."""

    median: float
    least: float
    most: float


def measure(engine: AnyEngine, script: Script, clock: Clock = time.perf_counter) -> Sample:
    """One run: the prompt is read at once, the tokens after it one at a time. A peer has a clock of its own."""
    if isinstance(engine, PeerProcess):
        run = engine.measure(script.ids, script.n_prompt)
        return Sample(run.prefill_s, run.ttft_s, run.decode_s, 1.0, None, None, logits_hash(run.logits))
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
    engines: Mapping[Turn, AnyEngine],
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


VARIES = "varies"


@dataclass(frozen=True)
class Row:
    """One contender at one prompt length."""

    contender: Contender
    n_prompt: int  # n_prompt, n_gen: tokens of the prompt, tokens after it
    n_gen: int
    samples: Sequence[Sample]  # its runs
    # dense, llama_cpp, ik: the runs of those rows in the same rounds; None where there is no such row
    dense: Optional[Sequence[Sample]] = None
    llama_cpp: Optional[Sequence[Sample]] = None
    ik: Optional[Sequence[Sample]] = None
    peak_bytes: Optional[int] = None  # peak RSS of a process that does such a run alone; None where it was not measured
    test_time: str = ""  # when its runs began, ISO 8601, UTC

    def seconds(self, part: str) -> list[float]:
        """The times of a part, "prefill", "ttft", "decode", "total", or "draft", which is in the first two."""
        return _seconds(self.samples, part)

    def spread(self, part: str) -> Spread:
        """Median, least and most seconds of a part."""
        return spread(self.seconds(part))

    def tokens(self, part: str) -> int:
        """Tokens that a part reads."""
        return {"decode": self.n_gen, "total": self.n_prompt + self.n_gen}.get(part, self.n_prompt)

    def rate(self, part: str) -> Spread:
        """Median, least and most tokens per second of a part."""
        return spread([self.tokens(part) / seconds for seconds in self.seconds(part)])

    def ratio_dense(self, part: str) -> Optional[float]:
        """How many times faster than the dense row."""
        return self._ratio(part, self.dense)

    def ratio_llama_cpp(self, part: str) -> Optional[float]:
        """How many times faster than llama.cpp."""
        return self._ratio(part, self.llama_cpp)

    def ratio_ik(self, part: str) -> Optional[float]:
        """How many times faster than ik_llama.cpp."""
        return self._ratio(part, self.ik)

    @property
    def token_share(self) -> float:
        """Share of the dense work that reading the prompt took, a draft's work included."""
        return self.samples[-1].token_share

    @property
    def draft_share(self) -> float:
        """The draft's part of it."""
        return self.samples[-1].draft_share

    @property
    def ideal_speedup(self) -> float:
        """Of the prefill, if time were all work: 1 / token share."""
        return 1.0 / self.token_share

    @property
    def reached(self) -> Optional[float]:
        """Share of the ideal that the prefill reached: dense time / own time / ideal."""
        ratio = self.ratio_dense("prefill")
        return None if ratio is None or self.contender.engine != LAZYGGUF else ratio / self.ideal_speedup

    @property
    def logits_hash(self) -> str:
        """Of the logits after the prompt; VARIES where the runs did not agree."""
        hashes = {sample.logits_hash for sample in self.samples}
        return hashes.pop() if len(hashes) == 1 else VARIES

    def _ratio(self, part: str, others: Optional[Sequence[Sample]]) -> Optional[float]:
        return None if others is None else pair_ratio(self.seconds(part), _seconds(others, part))


def _seconds(samples: Sequence[Sample], part: str) -> list[float]:
    return [getattr(sample, f"{part}_s") for sample in samples]


def make_rows(
    samples: Mapping[Contender, Sequence[Sample]],
    n_prompt: int,
    n_gen: int,
    peaks: Mapping[Contender, int],
    test_time: str,
) -> list[Row]:
    """The rows of one prompt length, in the order of the contenders."""
    dense = next((runs for contender, runs in samples.items() if contender.is_dense), None)
    by_engine = {contender.engine: runs for contender, runs in samples.items()}
    llama_cpp, ik = by_engine.get(LLAMA_CPP), by_engine.get(IK)
    return [
        Row(contender, n_prompt, n_gen, runs, dense, llama_cpp, ik, peaks.get(contender), test_time)
        for contender, runs in samples.items()
    ]
