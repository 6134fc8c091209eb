"""Memory: peak RSS of a process that reads a prompt, against llama-cpp-python, and K/V bytes of a schedule."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

from report import Report

N_TOKENS, N_DECODE = 4096, 8

OURS = """
import json, resource, sys
from lazygguf import LazyModel
path, keep, n, n_decode, text = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
model = LazyModel(path, keep=keep, n_ctx=n + n_decode + 8)
ids = model.tokenize(open(text, "rb").read())
model.eval(ids[:n])
rows = model.stats.token_share * n  # mean over layers
for token in ids[n : n + n_decode]:
    model.eval([token])
stats = model.stats
rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
bytes_held = {"kv_bytes": stats.kv_bytes, "aux_bytes": stats.aux_bytes}
print(json.dumps({"rss": rss, "rows": rows, **bytes_held}))
"""

THEIRS = """
import json, resource, sys
import llama_cpp
path, keep, n, n_decode, text = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
model = llama_cpp.Llama(path, n_ctx=n + n_decode + 8, n_ubatch=512, flash_attn=True, verbose=False)
ids = model.tokenize(open(text, "rb").read())
model.eval(ids[:n])
for token in ids[n : n + n_decode]:
    model.eval([token])
print(json.dumps({"rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""


def measure(program: str, path: str, keep: str, text: str) -> dict[str, Any]:
    command = [sys.executable, "-c", program, path, keep, str(N_TOKENS), str(N_DECODE), text]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return result


def run(args: argparse.Namespace, report: Report) -> None:
    text = str(args.text)
    theirs, dense = measure(THEIRS, args.model, "off", text), measure(OURS, args.model, "off", text)
    report.note(
        f"peak RSS at {N_TOKENS} tokens: dense {dense['rss'] / 1024:.0f} MiB, llama.cpp {theirs['rss'] / 1024:.0f}"
    )
    report.at_most(f"{N_TOKENS} tokens, peak RSS, dense / llama.cpp", dense["rss"] / theirs["rss"], 1.10)
    for keep in args.keep:
        lazy = measure(OURS, args.model, keep, text)
        mib = {name: lazy[name] / 2**20 for name in ("kv_bytes", "aux_bytes")}
        report.note(
            f"{keep}: K/V {mib['kv_bytes']:.1f} MiB, aux {mib['aux_bytes']:.1f} MiB, RSS {lazy['rss'] / 1024:.0f} MiB"
        )
        # a segment takes a little ahead, so that it need not grow with every token
        most = 1.1 * lazy["rows"] / dense["rows"]
        report.at_most(f"{N_TOKENS} tokens, {keep}: K/V bytes / dense", lazy["kv_bytes"] / dense["kv_bytes"], most)
