"""Memory: peak RSS of a process that reads a prompt, against llama-cpp-python, and K/V bytes of a schedule."""

from __future__ import annotations

import argparse
from dataclasses import replace

from lazygguf.tools.bench.contenders import LLAMA_CPP, contenders, split_keeps
from lazygguf.tools.bench.engines import Settings, open_engines
from lazygguf.tools.bench.measuring import peak_bytes
from lazygguf.tools.bench.records import model_facts
from lazygguf.tools.bench.text import Script, text_ids
from lazygguf.tools.bench.timing import measure
from lazygguf.tools.schedule_options import Asking
from report import Report

from lazygguf.text.tokenizer import Tokenizer

N_TOKENS, N_DECODE = 4096, 8


def run(args: argparse.Namespace, report: Report) -> None:
    rows = contenders(split_keeps(args.keep), Asking(), model_facts(args.model).shape, [LLAMA_CPP])
    read = Script(text_ids(Tokenizer(args.model), N_TOKENS + N_DECODE, str(args.text)), N_TOKENS)
    # as-is: a second form of the weights is memory that is spent on purpose
    settings = Settings(n_threads=args.threads, n_ctx=len(read.ids), weights="as-is")
    peaks = {row: peak_bytes(args.model, row, settings, read) for row in rows}
    theirs, dense = peaks[rows[0]], peaks[rows[1]]
    fast = peak_bytes(args.model, rows[1], replace(settings, weights="fast"), read)
    report.note(f"peak RSS at {N_TOKENS} tokens, MiB: dense {mib(dense)}, fast {mib(fast)}, llama.cpp {mib(theirs)}")
    report.at_most(f"{N_TOKENS} tokens, peak RSS, dense / llama.cpp", dense / theirs, 1.10)
    with open_engines(args.model, rows[1:], settings) as engines:
        samples = {row: measure(engine, read) for row, engine in engines.items()}
    dense_kv = samples[rows[1]].kv_bytes or 0
    for row in rows[2:]:
        held, label = samples[row], row.label
        shown = f"K/V {mib(held.kv_bytes)} MiB, aux {mib(held.aux_bytes)} MiB, RSS {mib(peaks[row])} MiB"
        report.note(f"{label}: {shown}")
        # a segment takes a little ahead, so that it need not grow with every token
        report.at_most(
            f"{N_TOKENS} tokens, {label}: K/V bytes / dense", (held.kv_bytes or 0) / dense_kv, 1.1 * held.token_share
        )


def mib(n: int | None) -> str:
    return f"{(n or 0) / 2**20:.1f}"
