"""``lazygguf bench``: how fast a model reads and answers, dense and pruned, beside llama.cpp.

A thin main: options, what is read, the runs, and the result as tables, JSON or a plot.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lazygguf.cli.demo import model_or_demo
from lazygguf.cli.main import EXIT_INTERRUPTED
from lazygguf.errors import Cancelled
from lazygguf.text.tokenizer import Tokenizer
from lazygguf.threads import physical_cores

from ..draft_options import draft_options
from ..plot_file import check_plot
from ..progress_bar import turn_bar
from ..quantize.quant_types import quant_type
from .contenders import LLAMA_CPP, contenders, parse_lengths, split_keeps
from .engines import Settings
from .facts import ModelFacts, describe, machine, model_facts
from .measuring import Plan, run_plan
from .options import add_arguments, asking_of, check_arguments
from .plot import write_plot
from .records import Conditions, to_records
from .rows import Row
from .shapes import SHAPES, shape_file
from .tables import print_tables
from .text import N_RANDOM_QUESTION, TEXT, question_ids, random_ids, text_ids

__all__ = ["add_arguments", "run"]

RANDOM = "random tokens"


def run(args: argparse.Namespace) -> int:
    """Runs ``lazygguf bench``; 130 after Ctrl-C, with the lengths that were complete printed."""
    check_arguments(args)
    if args.plot is not None:
        check_plot(args.plot)
    lengths, keeps = parse_lengths(args.n_prompt), split_keeps(args.keep)
    with _model_path(args) as path:
        draft = draft_options(args, path)
        model = model_facts(path, has_draft=args.model_draft is not None)
        against = LLAMA_CPP if args.against == LLAMA_CPP else None
        text, question = _text_and_question(args, model, max(lengths) + args.n_gen)
        plan = Plan(
            path=path,
            contenders=contenders(keeps, asking_of(args), model.shape, against),
            text=text,
            question=question,
            lengths=lengths,
            n_gen=args.n_gen,
            repeats=args.repetitions,
            settings=Settings(
                n_threads=args.threads or physical_cores(),
                n_ubatch=args.ubatch_size,
                n_gpu_layers=args.n_gpu_layers,
                device=args.device,
                rpc_servers=args.rpc,
                placement=args.placement,
                weights=args.weights,
                **draft,
            ),
            with_memory=args.memory,
        )
        _warn(plan, model)
        rows, interrupted = _measure(plan)
    if rows:
        read = RANDOM if _reads_random(args) else str(args.file or TEXT.name)
        _show(args, rows, Conditions(model, machine(), plan.settings, read))
    return EXIT_INTERRUPTED if interrupted else 0


@contextlib.contextmanager
def _model_path(args: argparse.Namespace) -> Iterator[str]:
    """The model file; one that was made for this run is gone after it, unless --shape-dir keeps it."""
    if args.shape is None:
        yield model_or_demo(args.model)
        return
    hparams, kind = SHAPES[args.shape], quant_type(args.type)
    if args.shape_dir is not None:
        yield str(shape_file(args.shape, hparams, kind, args.shape_dir))
        return
    with tempfile.TemporaryDirectory(prefix="lazygguf-bench-") as folder:
        yield str(shape_file(args.shape, hparams, kind, Path(folder)))


def _reads_random(args: argparse.Namespace) -> bool:
    """A random model reads random tokens, a text where a draft reads it too."""
    return args.shape is not None and args.model_draft is None


def _text_and_question(args: argparse.Namespace, model: ModelFacts, n_tokens: int) -> tuple[list[int], list[int]]:
    """Their tokens."""
    if _reads_random(args):
        ids = random_ids(model.n_vocab, n_tokens + N_RANDOM_QUESTION)
        return ids[:n_tokens], ids[n_tokens:]
    tokenizer = Tokenizer(model.path)
    try:
        return text_ids(tokenizer, n_tokens, args.file), question_ids(tokenizer, args.question)
    finally:
        tokenizer.close()


def _warn(plan: Plan, model: ModelFacts) -> None:
    longest = max(plan.lengths) + plan.n_gen
    if longest > model.n_ctx_train:
        _say(f"note: {longest:,} tokens are above the {model.n_ctx_train:,} that the model was trained with")


def _measure(plan: Plan) -> tuple[list[Row], bool]:
    """The rows of all complete lengths, and whether Ctrl-C ended the run."""
    rows: list[Row] = []
    try:
        with turn_bar(plan.n_turns) as on_turn:
            for finished in run_plan(plan, on_turn):
                rows += finished
                on_turn.say(f"{finished[0].n_prompt:,} tokens: done")
    except (KeyboardInterrupt, Cancelled):
        _say("interrupted" + (": these lengths are complete" if rows else " before a prompt length was complete"))
        return rows, True
    return rows, False


def _show(args: argparse.Namespace, rows: list[Row], conditions: Conditions) -> None:
    title = f"{Path(conditions.model.path).name}: {describe(conditions.model, conditions.machine, conditions.settings)}"
    if args.output == "json":
        print(json.dumps(to_records(rows, conditions), indent=2, ensure_ascii=False))
    elif args.output == "jsonl":
        for record in to_records(rows, conditions):
            print(json.dumps(record, ensure_ascii=False))
    else:
        print_tables(rows, f"{title}; {conditions.text}", markdown=args.output == "md")
    if args.plot is not None:
        settings = conditions.settings
        where = f"{settings.n_threads} {'core' if settings.n_threads == 1 else 'cores'}, {conditions.machine.cpu_info}"
        where += f", {conditions.machine.gpu_info}" if settings.n_gpu_layers else ""
        write_plot(rows, args.plot, f"Time to first token: {Path(conditions.model.path).name}", where)
        _say(f"wrote {args.plot}")


def _say(line: str) -> None:
    print(line, file=sys.stderr)
