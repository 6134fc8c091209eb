"""Dense logits and greedy text against llama-cpp-python on the same file."""

from __future__ import annotations

import argparse
from typing import Any

import llama_cpp
import numpy as np
from lazygguf.tools.bench.text import text_ids
from report import Report, nmse

from lazygguf import LazyModel

N_PREFILL, N_DECODE, N_GREEDY = 1000, 8, 64
PROMPTS = (
    "Write a short story about a lighthouse keeper.",
    "Explain how a bicycle stays upright.",
    "List five uses of a paper clip.",
    "What is the difference between a virus and a bacterium?",
    "Describe a rainy day in a small town.",
)


def greedy(model: LazyModel | llama_cpp.Llama, prompt: str) -> str:
    messages = [{"role": "user", "content": prompt}]
    answer: Any = model.create_chat_completion
    result = answer(messages, temperature=0.0, max_tokens=N_GREEDY)
    return str(result["choices"][0]["message"]["content"])


def run(args: argparse.Namespace, report: Report) -> None:
    # the file's own weights and ggml's kernels: what is asked is that the rest of the forward pass is llama.cpp's
    ours = LazyModel(args.model, keep="off", weights="as-is", n_ctx=2048, n_threads=args.threads)
    theirs = llama_cpp.Llama(
        args.model,
        n_ctx=2048,
        n_ubatch=512,
        n_threads=args.threads,
        n_threads_batch=args.threads,
        flash_attn=True,
        verbose=False,
    )
    ids = text_ids(ours, N_PREFILL + N_DECODE)
    worst = 0.0
    for step in (ids[:N_PREFILL], *([token] for token in ids[N_PREFILL:])):
        ours.eval(step)
        theirs.eval(step)
        expected = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(theirs.ctx, -1), (ours.n_vocab(),))
        logits = ours.logits
        assert logits is not None
        worst = max(worst, nmse(logits, expected))
    report.at_most(f"NMSE of the logits, {N_PREFILL} tokens and {N_DECODE} decode steps", worst, 1e-4)
    same = sum(greedy(ours, prompt) == greedy(theirs, prompt) for prompt in PROMPTS)
    report.at_least(f"greedy text of {N_GREEDY} tokens identical, prompts of {len(PROMPTS)}", same, 4)
