"""Speed: dense against llama-cpp-python, and a schedule against dense; the runs are those of ``lazygguf bench``."""

from __future__ import annotations

import argparse

from lazygguf.tools.bench.contenders import LLAMA_CPP, contenders, split_keeps
from lazygguf.tools.bench.engines import Settings
from lazygguf.tools.bench.measuring import Plan, run_plan
from lazygguf.tools.bench.records import model_facts
from lazygguf.tools.bench.text import text_ids
from lazygguf.tools.bench.timing import Row
from lazygguf.tools.schedule_options import Asking
from report import Report

from lazygguf.text.tokenizer import Tokenizer

LENGTHS = (512, 2048)
N_DECODE = 64


def run(args: argparse.Namespace, report: Report) -> None:
    facts, lengths = model_facts(args.model), sorted(args.lengths or LENGTHS)
    plan = Plan(
        path=args.model,
        contenders=contenders(split_keeps(args.keep), Asking(), facts.shape, [LLAMA_CPP]),
        text=text_ids(Tokenizer(args.model), lengths[-1] + N_DECODE, str(args.text)),
        lengths=lengths,
        n_gen=N_DECODE,
        repeats=args.repeats,
        settings=Settings(n_threads=args.threads),
        with_memory=False,
    )
    for rows in run_plan(plan):
        for row in rows:
            judge(row, report)


def judge(row: Row, report: Report) -> None:
    """Prints a row beside what is asked of it."""
    what = f"{row.n_prompt} tokens, {row.contender.label}"
    rates = [row.rate(part).median for part in ("prefill", "decode")]
    report.note(f"{what}: prefill {rates[0]:.0f} t/s, decode {rates[1]:.1f} t/s")
    if row.contender.engine == LLAMA_CPP:
        return
    if row.contender.is_dense:
        for part, least in (("prefill", 0.97), ("decode", 0.92)):
            report.at_least(f"{what} / llama.cpp, {part}", row.ratio_llama_cpp(part) or 0.0, least)
        return
    prefill, decode, total = (row.ratio_dense(part) or 0.0 for part in ("prefill", "decode", "total"))
    report.note(f"{what}: prefill takes {1 / prefill:.3f} of dense, token_share {row.token_share:.3f}")
    report.at_most(f"{what}: prefill time / promised share", 1 / prefill / row.token_share, 1.12)
    report.at_most(f"{what}: first token + {N_DECODE} decoded / dense", 1 / total, 1.03)
    report.note(f"{what}: decode {decode:.2f}x dense")
