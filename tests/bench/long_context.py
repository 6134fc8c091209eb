"""How time and memory grow with the context: each schedule at each length, in a process of its own.

The text is longer than the one that comes with lazygguf: without ``-f`` its paragraphs come again, in another order
each time. That changes what a schedule keeps, not how long a token takes.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Callable, NamedTuple

import numpy as np
from lazygguf.tools.bench.contenders import Contender, contenders, split_keeps
from lazygguf.tools.bench.engines import Settings, open_engines
from lazygguf.tools.bench.measuring import own_peak_bytes
from lazygguf.tools.bench.records import machine, model_facts
from lazygguf.tools.bench.text import QUESTION, Script, question_ids, script
from lazygguf.tools.bench.timing import measure
from lazygguf.tools.child_process import child_command
from lazygguf.tools.schedule_options import Asking
from report import Report

from lazygguf.text.tokenizer import Tokenizer

LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768)
N_DECODE = 32
MOST_BYTES = 24 * 2**30
MIB = 2**20


class Point(NamedTuple):
    """One schedule at one length: the best time of some runs, and the peak of all."""

    label: str
    n_tokens: int
    ttft_s: float
    decode_tps: float
    token_share: float
    cache_bytes: int  # K/V and aux rows
    peak_bytes: int  # of its process


def run(args: argparse.Namespace, report: Report) -> None:
    lengths = sorted(args.lengths or LENGTHS)
    ids, question = text_and_question(args.model, lengths[-1] + N_DECODE, args.text)
    here = machine()
    report.note(f"{Path(args.model).name}, {args.threads} threads of {here.cpu_info}, {here.isa}")
    rows = contenders(split_keeps(args.keep or None), Asking(), model_facts(args.model).shape, [])
    points: list[Point] = []
    for n_tokens in lengths:
        for row in rows:
            job = script(ids, question, n_tokens, N_DECODE)
            points.append(in_a_process(args.model, row, args.threads, job, args.repeats))
            report.note(shown(points[-1]))
    for row in rows:
        judge([point for point in points if point.label == row.label], report)
    if args.plot is not None:
        write_plot(points, args.plot, f"{Path(args.model).name}, {args.threads} threads, {here.cpu_info} ({here.isa})")


def shown(point: Point) -> str:
    per_1000 = 1000 * point.ttft_s / point.n_tokens
    return (
        f"{point.n_tokens:>6} {point.label:30} first token {point.ttft_s:8.2f} s ({per_1000:6.3f} s per 1,000), "
        f"share {point.token_share:.2f}, decode {point.decode_tps:6.1f} t/s, "
        f"cache {point.cache_bytes / MIB:8.1f} MiB, peak {point.peak_bytes / MIB:8.1f} MiB"
    )


def judge(points: Sequence[Point], report: Report) -> None:
    """Memory that grows with the context as the caches do; how much of the time grows with its square is only said."""
    last = points[-1]
    report.at_most(f"{last.label}, {last.n_tokens} tokens: peak, GiB", last.peak_bytes / 2**30, MOST_BYTES / 2**30)
    if len(points) < 3:
        return
    before = points[-2]
    grown = (last.peak_bytes - before.peak_bytes) / (last.n_tokens - before.n_tokens)
    of_cache = last.cache_bytes / last.n_tokens
    report.note(
        f"{last.label}: {grown / 1024:.1f} KiB a token at the end, {of_cache / 1024:.1f} of them K/V and aux rows"
    )
    sizes = np.array([point.n_tokens for point in points], np.float64)
    times = np.array([point.ttft_s for point in points])
    # relative errors count, so that the short ones count too
    terms = np.stack([np.ones_like(sizes), sizes, sizes**2], axis=1) / times[:, None]
    _, linear, square = np.linalg.lstsq(terms, np.ones_like(times), rcond=None)[0]
    parts = linear * last.n_tokens, square * last.n_tokens**2
    report.note(
        f"{last.label}: of {last.ttft_s:.1f} s at {last.n_tokens}, {parts[0]:.1f} grow with the length, "
        f"{parts[1]:.1f} with its square"
    )


def text_and_question(path: str, n_tokens: int, text: Path) -> tuple[list[int], list[int]]:
    tokenizer = Tokenizer(path)
    paragraphs = text.read_text(encoding="utf-8", errors="replace").split("\n\n")
    ids = tokenizer.tokenize("\n\n".join(paragraphs).encode())
    for seed in range(1000):
        if len(ids) >= n_tokens:
            break
        again = random.Random(seed).sample(paragraphs, len(paragraphs))
        ids += tokenizer.tokenize(("\n\n" + "\n\n".join(again)).encode(), add_bos=False)
    question = question_ids(tokenizer, QUESTION)
    tokenizer.close()
    return ids[:n_tokens], question


# ---- one measurement


def in_a_process(path: str, row: Contender, n_threads: int, read: Script, repeats: int) -> Point:
    job = {
        "path": path,
        "contender": row.to_dict(),
        "settings": asdict(Settings(n_threads=n_threads, n_ctx=len(read.ids))),
        "script": read._asdict(),
        "repeats": repeats,
    }
    done = subprocess.run(child_command(__name__), input=json.dumps(job), stdout=subprocess.PIPE, text=True, check=True)
    return Point(**json.loads(done.stdout.splitlines()[-1]))


def main() -> int:
    """The child: a job as JSON on stdin, the point on stdout."""
    job: dict[str, Any] = json.load(sys.stdin)
    row, read = Contender.from_dict(job["contender"]), Script(**job["script"])
    with open_engines(job["path"], [row], Settings(**job["settings"])) as engines:
        samples = [measure(engines[row], read) for _ in range(job["repeats"])]
        best = min(samples, key=lambda sample: sample.ttft_s)
        point = Point(
            label=row.label,
            n_tokens=read.n_prompt,
            ttft_s=best.ttft_s,
            decode_tps=N_DECODE / min(sample.decode_s for sample in samples),
            token_share=best.token_share,
            cache_bytes=(best.kv_bytes or 0) + (best.aux_bytes or 0),
            peak_bytes=own_peak_bytes(),
        )
    print(json.dumps(point._asdict()))
    return 0


# ---- the plot


def write_plot(points: Sequence[Point], path: Path, subtitle: str) -> None:
    """Time, time per token and memory against the length, as a PNG (matplotlib, the extra ``[plot]``)."""
    from matplotlib.figure import Figure

    panels: tuple[tuple[str, Callable[[Point], float]], ...] = (
        ("time to first token (s)", lambda p: p.ttft_s),
        ("decode (ms a token)", lambda p: 1000 / p.decode_tps),
        ("peak memory (GiB)", lambda p: p.peak_bytes / 2**30),
    )
    figure = Figure(figsize=(12, 4.2), dpi=160, layout="constrained")
    lengths = sorted({point.n_tokens for point in points})
    for axes, (title, value) in zip(figure.subplots(1, len(panels)), panels):
        for label in dict.fromkeys(point.label for point in points):
            line = [point for point in points if point.label == label]
            axes.plot([p.n_tokens for p in line], [value(p) for p in line], marker="o", markersize=4, label=label)
        axes.set_xticks(lengths[-3:], [f"{n:,}" for n in lengths[-3:]])
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("tokens in the context")
        axes.set_title(title, loc="left", fontsize=10)
        axes.grid(axis="y", color="#dddddd", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, title="keep")
    figure.suptitle(subtitle, x=0.01, ha="left", fontsize=10)
    figure.savefig(path, format="png")
