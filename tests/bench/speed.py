"""Speed: dense against llama-cpp-python, and a schedule against dense, interleaved in one run."""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import Callable

import llama_cpp
from report import Report
from texts import real_tokens

from lazygguf import LazyModel

N_DECODE = 64


def timed(read: Callable[[list[int]], object], steps: list[list[int]]) -> float:
    begin = time.perf_counter()
    for step in steps:
        read(step)
    return time.perf_counter() - begin


class Lazy:
    """A LazyModel as prefill and decode."""

    def __init__(self, path: str, keep: str, n_ctx: int, n_threads: int, max_revive: int = 4) -> None:
        self.model = LazyModel(path, keep=keep, max_revive=max_revive, n_ctx=n_ctx, n_threads=n_threads)

    def measure(self, ids: list[int], n: int) -> tuple[float, float]:
        self.model.reset()
        prefill = timed(self.model.eval, [ids[:n]])
        self.token_share = self.model.stats.token_share
        return prefill, timed(self.model.eval, [[token] for token in ids[n:]])


class LlamaCpp:
    """llama-cpp-python likewise, with flash attention as lazygguf has it."""

    def __init__(self, path: str, n_ctx: int, n_threads: int) -> None:
        self.model = llama_cpp.Llama(
            path,
            n_ctx=n_ctx,
            n_ubatch=512,
            n_batch=512,
            n_threads=n_threads,
            n_threads_batch=n_threads,
            flash_attn=True,
            verbose=False,
        )

    def measure(self, ids: list[int], n: int) -> tuple[float, float]:
        self.model.n_tokens = 0  # as its reset() does
        prefill = timed(self.model.eval, [ids[:n]])
        return prefill, timed(self.model.eval, [[token] for token in ids[n:]])


def interleave(
    runners: dict[str, Lazy | LlamaCpp], ids: list[int], n: int, repeats: int
) -> dict[str, list[list[float]]]:
    """Times of each runner, (prefill, decode) by repeat; one warm-up."""
    times: dict[str, list[list[float]]] = {name: [[], []] for name in runners}
    for repeat in range(repeats + 1):
        for name, runner in runners.items():
            prefill, decode = runner.measure(ids, n)
            if repeat > 0:
                times[name][0].append(prefill)
                times[name][1].append(decode)
    return times


def ratio(ours: list[float], theirs: list[float]) -> float:
    """How many times faster ours is, the median over pairs."""
    return median(t / o for o, t in zip(ours, theirs))


def run(args: argparse.Namespace, report: Report) -> None:
    n_ctx = max(args.lengths) + N_DECODE + 8
    dense = Lazy(args.model, "off", n_ctx, args.threads)
    lazy = {keep: Lazy(args.model, keep, n_ctx, args.threads) for keep in args.keep}
    runners: dict[str, Lazy | LlamaCpp] = {
        "llama.cpp": LlamaCpp(args.model, n_ctx, args.threads),
        "dense": dense,
        **lazy,
    }
    for n in args.lengths:
        ids = real_tokens(dense.model, n + N_DECODE)
        times = interleave(runners, ids, n, args.repeats)
        for name in runners:
            prefill, decode = (median(t) for t in times[name])
            report.note(f"{n} tokens, {name}: prefill {n / prefill:.0f} t/s, decode {N_DECODE / decode:.1f} t/s")
        ours, theirs = times["dense"], times["llama.cpp"]
        report.at_least(f"{n} tokens, dense / llama.cpp, prefill", ratio(ours[0], theirs[0]), 0.97)
        report.at_least(f"{n} tokens, dense / llama.cpp, decode", ratio(ours[1], theirs[1]), 0.92)
        for keep, runner in lazy.items():
            promised = runner.token_share
            spent = 1.0 / ratio(times[keep][0], ours[0])
            report.note(f"{n} tokens, {keep}: prefill takes {spent:.3f} of dense, token_share {promised:.3f}")
            report.at_most(f"{n} tokens, {keep}: prefill time / promised share", spent / promised, 1.12)
            whole = [[p + d for p, d in zip(*times[name])] for name in (keep, "dense")]
            report.at_most(f"{n} tokens, {keep}: first token + {N_DECODE} decoded / dense", 1 / ratio(*whole), 1.03)
            report.note(f"{n} tokens, {keep}: decode {ratio(times[keep][1], ours[1]):.2f}x dense")
