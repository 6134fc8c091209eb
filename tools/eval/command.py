"""``lazygguf eval``: what a keep schedule costs in quality, beside what it saves.

A thin main: check the options, open the model, ask everything, print the table. Quality is measured by retrieval and
aggregation tasks (RULER's), question answering, LongBench, and the KL divergence of continuation tokens.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from lazygguf._names import refuse_unknown
from lazygguf.cli.arguments import add_compute_arguments, add_file_argument, check_least, compute_options
from lazygguf.cli.demo import model_or_demo
from lazygguf.cli.main import EXIT_INTERRUPTED, UsageError
from lazygguf.cli.printable import printable
from lazygguf.errors import Cancelled
from lazygguf.model.options import ModelOptions
from lazygguf.read.sources import N_SOURCES

from ..plot_file import check_plot
from ..progress_bar import step_bar
from ..schedule_options import Asking, add_schedule_arguments, draft_options, is_spelled, split_schedules
from .engine import Engine
from .kld import N_CONTINUATION, KldSource
from .longbench import N_SPARE, NAMES, LongBenchSource, found_tasks, require_metrics
from .methods import BASELINES, DENSE, SHARED_BASELINES, BaselineOptions, Method, make_methods
from .prompts import KLD, Haystack, Source
from .report import draw, make_kld_rows, make_rows, make_source_rows, plotted, to_json, to_text
from .runner import AnswerFile, Plan, Run
from .tasks import GENERATED, REWORDED, Form, GeneratedSource

DEFAULT_TASKS = ("niah_single", "niah_multikey", "qa", KLD)
DEFAULT_LENGTH = "1000"
DEFAULT_SAMPLES = 50

_PLACES = {None: "after", "both": "both", "only": "before"}
_NO_PLOT = "--plot shows scores and times against dense: it needs dense in --baselines and a scored task"
_EPILOG = f"""\
tasks: {", ".join((*GENERATED, KLD))} (generated; RULER's definitions and scoring), and with --longbench DIR the
names of LongBench's files ({", ".join(NAMES[:4])}, ...; X_e is LongBench-E's X). A schedule holds commas:
--keep is repeated, or separated by semicolons.

random and recent drop tokens before layer 0, static once after an early layer; each does as much work as the first
--keep promises (an adaptive one such as a profile: as it does on the first prompt of each task), or --baseline-share.
paper is the LazyLLM paper's rule at early layers. Every question is asked of all methods before the next one. The same
--seed gives the same prompts, whatever else is asked for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options, spelled as llama.cpp spells those it has."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    _add_model_arguments(parser.add_argument_group("model"))
    _add_task_arguments(parser.add_argument_group("what is asked"))
    _add_method_arguments(parser.add_argument_group("what is compared"))
    _add_output_arguments(parser.add_argument_group("output"))


@dataclass(frozen=True)
class Asked:
    """What is asked, checked."""

    tasks: list[str]  # names, in the order given
    lengths: list[int]  # of generated prompts and kld, in tokens
    samples: int  # questions of a task at a length, at most
    place: str  # of the question: "after", "before" or "both"
    keeps: list[str]  # schedules under test
    baselines: list[str]


def check_arguments(args: argparse.Namespace) -> Asked:
    """Reads the lists among the options and refuses what cannot work.

    Raises:
        ValueError, UsageError: an option's value is wrong, or two do not go together.
        OSError: a folder or file is missing.
        ImportError: a LongBench metric needs a library that is not installed.
    """
    check_least(args, {"sources": 1, "samples": 1, "max_length": 1, "ubatch_size": 1, "threads": 1, "ctx_size": 0})
    if args.baseline_share is not None and not 0 < args.baseline_share < 1:
        raise ValueError(f"--baseline-share {args.baseline_share:g}: expected a value between 0 and 1")
    baselines = _list(args.baselines)
    refuse_unknown(baselines, BASELINES, "baseline")
    tasks = _tasks(args)
    keeps = split_schedules(args.keep or [])
    asking = next((name for name in ("n_query", "pool") if getattr(args, name) is not None), None)
    if asking and "static" not in baselines and not any(is_spelled(keep) for keep in keeps):
        raise UsageError(f"--{asking.replace('_', '-')} is for schedules spelled with --keep; a profile has its own")
    if not keeps and not baselines:
        raise UsageError("nothing to compare: give --keep or --baselines")
    if KLD in tasks and DENSE not in baselines:
        raise UsageError("task kld compares with the dense run: add dense to --baselines")
    if args.plot is not None:
        check_plot(args.plot)
        if DENSE not in baselines or tasks == [KLD]:
            raise UsageError(_NO_PLOT)
    return Asked(tasks, parse_lengths(args.length), args.samples, _PLACES[args.question_first], keeps, baselines)


def _tasks(args: argparse.Namespace) -> list[str]:
    folder: Optional[Path] = args.longbench
    found = found_tasks(folder) if folder is not None else []
    if args.tasks is None:
        tasks = found or list(DEFAULT_TASKS)
    else:
        tasks = _list(args.tasks)
        refuse_unknown(tasks, (*GENERATED, KLD, *NAMES), "task")
    ours = [task for task in tasks if task in NAMES]
    if ours and folder is None:
        raise UsageError(f"task {ours[0]} is LongBench's: give the folder of its files with --longbench DIR")
    missing = [task for task in ours if task not in found]
    if missing:
        raise FileNotFoundError(f"--longbench {folder}: there is no {missing[0]}.jsonl")
    require_metrics(ours)
    alone = [task for task in tasks if args.reworded and task not in REWORDED]
    if alone:
        raise UsageError(f"--reworded: task {alone[0]} has no other words; those that have: {', '.join(REWORDED)}")
    return tasks


def parse_lengths(text: str) -> list[int]:
    """The numbers of --length, each once; ValueError where one is none."""
    try:
        lengths = [int(part) for part in _list(text)]
    except ValueError:
        lengths = []
    if not lengths or min(lengths) < 1:
        raise ValueError(f'--length "{text}": expected numbers of tokens such as "1000,2000"')
    return list(dict.fromkeys(lengths))


def _list(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _add_model_arguments(group: Any) -> None:
    add_file_argument(group)
    group.add_argument("-c", "--ctx-size", type=int, default=0, metavar="N", help="context, tokens (0: the model's)")
    add_compute_arguments(group)


def _add_task_arguments(group: Any) -> None:
    group.add_argument("--tasks", metavar="NAMES", help=f"comma-separated (default: {','.join(DEFAULT_TASKS)})")
    group.add_argument(
        "--length",
        default=DEFAULT_LENGTH,
        metavar="N,N",
        help=f"tokens of generated prompts ({DEFAULT_LENGTH})",
    )
    group.add_argument(
        "--samples", type=int, default=DEFAULT_SAMPLES, metavar="N", help=f"questions per task ({DEFAULT_SAMPLES})"
    )
    group.add_argument("-s", "--seed", type=int, default=42, metavar="N", help="of prompts and random scores (42)")
    group.add_argument("-f", "--file", metavar="FILE", help="the haystack (default: a text that ships with lazygguf)")
    group.add_argument(
        "--question-first",
        nargs="?",
        const="only",
        choices=("only", "both"),
        help="the question stands before the text only (a known weakness of pruning), or on both sides",
    )
    group.add_argument(
        "--answer-prefix", action="store_true", help="RULER's begin of the answer follows the chat template"
    )
    group.add_argument(
        "--reworded", action="store_true", help=f"the same tasks told and asked in other words ({', '.join(REWORDED)})"
    )
    group.add_argument("--longbench", type=Path, metavar="DIR", help="folder of LongBench's jsonl files")
    group.add_argument(
        "--max-length",
        type=int,
        metavar="N",
        help="tokens of a LongBench prompt, the middle of longer ones is left out (default: context - 600)",
    )


def _add_method_arguments(group: Any) -> None:
    add_schedule_arguments(group, "none")
    group.add_argument(
        "--baselines", default=DENSE, metavar="NAMES", help=f"of {','.join(BASELINES)} (default: {DENSE})"
    )
    group.add_argument("--baseline-share", type=float, metavar="X", help="share of the dense work of the baselines")
    group.add_argument(
        "--static-il", type=int, metavar="N", help="layer after which static prunes (15%% of the layers)"
    )
    group.add_argument(
        "--paper", metavar="SCHEDULE", help="of the baseline paper (half after 30, 60, 85%% of the layers)"
    )


def _add_output_arguments(group: Any) -> None:
    group.add_argument(
        "--out", type=Path, metavar="DIR", help="every answer as a line of a file here; a second run goes on from it"
    )
    group.add_argument(
        "--sources",
        nargs="?",
        type=int,
        const=N_SOURCES,
        metavar="N",
        help=f"also how often the N passages that a right answer leaned on hold what answers ({N_SOURCES})",
    )
    group.add_argument("--json", action="store_true", help="the table as JSON")
    group.add_argument("--plot", type=Path, metavar="FILE", help="quality against speed-up, a picture")


def run(args: argparse.Namespace) -> int:
    """Runs ``lazygguf eval``; the exit code is 0, or 130 after Ctrl-C, when the table holds what there is."""
    asked = check_arguments(args)
    haystack = Haystack.read(args.file)
    model_path = model_or_demo(args.model)
    options = ModelOptions(n_ctx=args.ctx_size, **compute_options(args), **draft_options(args, model_path))
    with Engine(model_path, options, args.sources or 0) as engine:
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
    source_rows = make_source_rows(work.records, methods)
    if args.json:
        head: dict[str, Any] = {"model": model, "settings": dict(work.plan.settings), "seed": args.seed}
        described = [method.to_dict() for method in methods]
        print(json.dumps({**head, "methods": described, **to_json(rows, kld_rows, source_rows)}, ensure_ascii=False))
    else:
        sys.stdout.write(printable(to_text(rows, kld_rows, source_rows)))
    if args.plot is not None and plotted(rows):  # after Ctrl-C there may be nothing
        draw(args.plot, rows, {method.label: method.kind for method in methods}, f"{model}, seed {args.seed}")
