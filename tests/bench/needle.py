"""Retrieval: a number planted in 1,000 tokens, asked for at once, and in a second turn after an unrelated question."""

from __future__ import annotations

import argparse
from typing import Any

from report import Report
from texts import QUESTION, UNRELATED, needle_document

from lazygguf import KeepSchedule, LazyModel

N_TOKENS = 1000


def answer(model: LazyModel, messages: list[dict[str, str]]) -> str:
    result: Any = model.create_chat_completion(messages, temperature=0.0, max_tokens=48)
    return str(result["choices"][0]["message"]["content"])


def ask_both(model: LazyModel, document: str) -> tuple[str, str]:
    """The answer in the first turn of a session, and in the second turn of another."""
    model.reset()
    at_once = answer(model, [{"role": "user", "content": f"{document}\n\n{QUESTION}"}])
    model.reset()
    chat = [{"role": "user", "content": f"{document}\n\n{UNRELATED}"}]
    chat.append({"role": "assistant", "content": answer(model, chat)})
    return at_once, answer(model, [*chat, {"role": "user", "content": QUESTION}])


def run(args: argparse.Namespace, report: Report) -> None:
    for keep in args.keep:
        is_spelling = keep not in ("auto", "off")
        schedule = KeepSchedule.parse(keep, n_query=8, pool=7, max_revive=4) if is_spelling else keep
        model = LazyModel(args.model, keep=schedule, n_ctx=2048, n_threads=args.threads)
        found, revived, decoded = [0, 0], 0, 0
        for seed in range(args.samples):
            document, number = needle_document(model, seed, N_TOKENS, args.text)
            answers = ask_both(model, document)
            revived, decoded = revived + model.stats.revived, decoded + model.stats.n_decoded
            for turn, text in enumerate(answers):
                found[turn] += number in text
                if number not in text:
                    report.note(f"seed {seed}, turn {turn + 1}: {number} asked, answered {text[:60]!r}")
        wanted = round(0.95 * args.samples)
        report.at_least(f"{keep}, window 8, pool 7: found of {args.samples}, first turn", found[0], wanted)
        report.at_least(f"{keep}, window 8, pool 7: found of {args.samples}, second turn", found[1], wanted)
        report.note(f"{keep}: {revived / max(decoded, 1):.2f} tokens revived per decoded token in second turns")
        model.close()
