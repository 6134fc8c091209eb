"""Three questions over one document with a draft, each about a part that the others did not need."""

from __future__ import annotations

import argparse
from typing import Any

from report import Report
from texts import three_facts

from lazygguf import LazyModel

N_TOKENS = 1000
WHO = ("dense", "draft", "draft, nothing revived")


def ask_three(model: LazyModel, document: str, questions: list[tuple[str, str]]) -> list[bool]:
    """Which of the questions, asked one after the other, are answered."""
    model.reset()
    messages: list[dict[str, str]] = []
    right = []
    for i, (question, number) in enumerate(questions):
        content = f"{document}\n\n{question}" if i == 0 else question
        messages.append({"role": "user", "content": content})
        result: Any = model.create_chat_completion(messages, temperature=0.0, max_tokens=32, repeat_penalty=1.0)
        answer = str(result["choices"][0]["message"]["content"])
        messages.append({"role": "assistant", "content": answer})
        right.append(number in answer)
    return right


def run(args: argparse.Namespace, report: Report) -> None:
    keep = args.keep[0] if args.keep else "-1:0.2"
    options = {"n_ctx": 2048, "n_threads": args.threads}
    dense = LazyModel(args.model, keep="off", **options)
    drafted = LazyModel(args.model, draft=args.model_draft, keep=keep, **options)
    assert drafted._context is not None
    reader: Any = drafted._context.reader
    if reader is None:
        raise SystemExit(f"{args.model_draft}: no draft for {args.model} with --keep {keep}")
    thirds = dict.fromkeys(WHO, 0)
    n_dense = 0
    for seed in range(args.samples):
        document, questions = three_facts(dense, seed, N_TOKENS, args.text)
        answered = {WHO[0]: ask_three(dense, document, questions)}
        for who, reader.revives in zip(WHO[1:], (True, False)):
            answered[who] = ask_three(drafted, document, questions)
        report.note(f"seed {seed}: " + "; ".join(f"{who} {''.join('-+'[ok] for ok in answered[who])}" for who in WHO))
        if answered["dense"][2]:
            n_dense += 1
            for who in WHO:
                thirds[who] += answered[who][2]
    report.note(f"third answers where dense is right ({n_dense} of {args.samples} sessions): {thirds}")
    report.at_least(f"{keep}: third answers of those of dense", thirds["draft"] / max(n_dense, 1), 0.95)
    lost = thirds["draft"] - thirds["draft, nothing revived"]
    report.at_least(f"{keep}: third answers that revival brought", lost, 0.2 * n_dense)
    for model in (drafted, dense):
        model.close()
