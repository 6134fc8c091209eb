"""``lazygguf eval``: what a keep schedule costs in quality, beside what it saves.

A thin main: check, open the model, ask everything, print the table. Quality is measured by retrieval and
aggregation tasks (RULER's), question answering, LongBench, and the KL divergence of continuation tokens.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Optional

from lazygguf.cli.arguments import compute_options
from lazygguf.cli.demo import model_or_demo
from lazygguf.cli.main import EXIT_INTERRUPTED
from lazygguf.cli.printable import printable
from lazygguf.errors import Cancelled
from lazygguf.model.options import ModelOptions

from ..progress_bar import step_bar
from ..schedule_options import Asking, draft_options
from .engine import Engine
from .haystack import Haystack
from .kld import N_CONTINUATION, KldSource
from .longbench import N_SPARE, NAMES, LongBenchSource
from .methods import SHARED_BASELINES, BaselineOptions, Method, make_methods
from .options import Asked, check_arguments
from .plot import draw, plotted
from .questions import KLD, Source
from .records import AnswerFile
from .runner import Plan, Run
from .table import make_kld_rows, make_rows, to_json, to_text
from .tasks import Form, GeneratedSource


def run(args: argparse.Namespace) -> int:
    """Runs ``lazygguf eval``; the exit code is 0, or 130 after Ctrl-C, when the table holds what there is."""
    asked = check_arguments(args)
    haystack = Haystack.read(args.file)
    model_path = model_or_demo(args.model)
    options = ModelOptions(n_ctx=args.ctx_size, **compute_options(args), **draft_options(args, model_path))
    with Engine(model_path, options) as engine:
        tested = _methods(args, asked, engine, [], None)  # a wrong schedule is said before prompts are made
        sources = _sources(args, asked, engine, haystack)
        share = _baseline_share(args, asked, tested, engine, sources)
        methods = _methods(args, asked, engine, asked.baselines, share)
        readers = [engine.reader(method) for method in methods]
        answers = AnswerFile(args.out, engine.identity)
        work = Run(Plan(sources, readers, engine.settings, args.seed), answers)
        code = _ask(work)
    _report(args, work, methods, Path(model_path).name)
    return code


def _ask(work: Run) -> int:
    with step_bar("evaluating", "answers") as progress:
        try:
            work.all(progress)
        except (KeyboardInterrupt, Cancelled):
            return EXIT_INTERRUPTED
    return 0


def _methods(
    args: argparse.Namespace, asked: Asked, engine: Engine, names: list[str], share: Optional[float]
) -> list[Method]:
    """The schedules under test beside these baselines."""
    baselines = BaselineOptions(names, share, args.static_il, args.paper, args.seed)
    asking = Asking(args.n_query, args.pool, args.max_revive)
    return make_methods(asked.keeps, asking, baselines, engine.shape, engine.draft_identity)


def _baseline_share(
    args: argparse.Namespace, asked: Asked, tested: list[Method], engine: Engine, sources: list[Source]
) -> Optional[float]:
    """--baseline-share, else what an adaptive schedule reads of the first prompt of each task; None: what it promises.

    An adaptive schedule promises the most that it may read, which is far more than it does.
    """
    first = next((method for method in tested if method.schedule is not None), None)
    prompts = [source.question(0).prompt for source in sources if source.task != KLD]
    is_given = args.baseline_share is not None or SHARED_BASELINES.isdisjoint(asked.baselines)
    if is_given or first is None or not first.is_adaptive or not prompts:
        return args.baseline_share  # type: ignore[no-any-return]
    reader = engine.reader(first)
    share = round(sum(reader.share(prompt) for prompt in prompts) / len(prompts), 2)
    return share if share < 1 else None


def _sources(args: argparse.Namespace, asked: Asked, engine: Engine, haystack: Haystack) -> list[Source]:
    """The tasks at their lengths; each is tried once, so that what cannot work is said before the run."""
    form = Form(asked.place, args.answer_prefix, args.reworded)
    max_length = args.max_length or max(1, engine.n_ctx - N_SPARE)
    sources: list[Source] = []
    for task in asked.tasks:
        if task in NAMES:
            sources.append(LongBenchSource(task, args.longbench, asked.samples, max_length, engine.prompter))
            _check_room(sources[-1], engine.n_ctx, "--max-length", max_length)
            continue
        for length in asked.lengths:
            if task == KLD:
                _check_length(task, length, N_CONTINUATION, engine.n_ctx)
                sources.append(KldSource(asked.samples, args.seed, length, haystack, engine.prompter))
            else:
                source = GeneratedSource(task, length, asked.samples, args.seed, haystack, engine.prompter, form)
                _check_length(task, length, source.max_tokens, engine.n_ctx)
                source.question(0)
                sources.append(source)
    return sources


def _check_length(task: str, length: int, n_answer: int, n_ctx: int) -> None:
    if length + n_answer > n_ctx:
        raise ValueError(
            f"--length {length}, task {task}: {length} tokens and {n_answer} of the answer are {length + n_answer}, "
            f"the context holds {n_ctx} (-c)"
        )


def _check_room(source: Source, n_ctx: int, option: str, value: int) -> None:
    """Raises ValueError when a prompt with its answer does not fit into the context."""
    for index in range(source.n_questions):
        prompt = source.question(index).prompt
        needed = len(prompt.ids) + prompt.max_tokens
        if needed > n_ctx:
            raise ValueError(
                f"{option} {value}, task {source.task}: prompt {index} and its answer take {needed} tokens, "
                f"the context holds {n_ctx}; give a smaller {option}"
            )


def _report(args: argparse.Namespace, work: Run, methods: list[Method], model: str) -> None:
    """Prints the table, and draws the plot where there is something to draw."""
    rows, kld_rows = make_rows(work.records, methods), make_kld_rows(work.records, methods)
    if args.json:
        head: dict[str, Any] = {"model": model, "settings": dict(work.plan.settings), "seed": args.seed}
        described = [method.to_dict() for method in methods]
        print(json.dumps({**head, "methods": described, **to_json(rows, kld_rows)}, ensure_ascii=False))
    else:
        sys.stdout.write(printable(to_text(rows, kld_rows)))
    if args.plot is not None and plotted(rows):  # after Ctrl-C there may be nothing
        draw(args.plot, rows, {method.label: method.kind for method in methods}, f"{model}, seed {args.seed}")
