"""``lazygguf bench``: how fast a model reads and answers, dense and pruned, beside llama.cpp.

Owns the options, spelled as llama-bench spells them where it has them, what is read, and in which form the result is
shown: tables, JSON or a plot.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lazygguf.cli.arguments import add_compute_arguments, add_file_argument, add_placement_argument, check_least
from lazygguf.cli.demo import model_or_demo
from lazygguf.cli.main import EXIT_INTERRUPTED, UsageError
from lazygguf.errors import Cancelled
from lazygguf.text.tokenizer import Tokenizer
from lazygguf.threads import physical_cores

from ..plot_file import check_plot
from ..progress_bar import say, turn_bar
from ..quantize.quant_types import quant_type
from ..schedule_options import Asking, add_schedule_arguments, draft_options
from .contenders import IK, LLAMA_CPP, contenders, parse_lengths, split_keeps
from .engines import Settings
from .kernels import run_kernels
from .measuring import Plan, run_plan
from .peer import find_ik
from .plot import write_plot
from .records import Conditions, ModelFacts, describe, machine, model_facts, to_records
from .shapes import SHAPES, shape_file
from .tables import print_tables
from .text import N_RANDOM_QUESTION, QUESTION, TEXT, question_ids, random_ids, text_ids
from .timing import Row

RANDOM = "random tokens"

_EPILOG = """\
Every prompt length is read by llama.cpp, dense ("off", always there) and with each schedule, in turn, -r times
after a warm-up of each: same text and question, threads, n_ubatch, flash attention, F16 K/V cache. After the prompt
the next -n tokens of the text are read one at a time. TTFT is everything that is needed to go on decoding: the
prompt read, its logits, the first token sampled. Ratios are medians over the pairs of one round, above 1 is faster
than dense or llama.cpp. "ideal" is 1 / share of the dense work, a draft's work included; "reached" is the share of it
that the prefill came to. With a draft (-md) TTFT holds its time too; --shape takes no second look.
"peak" is the resident memory of a process that does one such run alone. "logits" is a hash of the logits' bits
after the prompt: equal hashes mean equal to the last bit, as dense and llama.cpp are with --weights as-is.

--peer ik measures ik_llama.cpp too, from its pip package, in a process of its own, in turn with the others. The package
must not be in one process with llama-cpp-python and may need another Python, so it can have an environment of its own:
  python3 -m venv ik-venv && ik-venv/bin/pip install ik-llama-cpp-python==0.1.5
  lazygguf bench -m model.gguf --peer ik --peer-python ik-venv/bin/python

A schedule has commas of its own, so --keep takes a list separated by ";", and may be repeated:
  --keep "10:0.3,13:0.1;auto" --keep profile.json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of ``lazygguf bench``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    _add_model_arguments(parser.add_argument_group("model"))
    _add_run_arguments(parser.add_argument_group("what is measured"))
    add_schedule_arguments(parser.add_argument_group("keep schedules"), "auto")
    _add_output_arguments(parser.add_argument_group("output"))


def check_arguments(args: argparse.Namespace) -> None:
    """Raises UsageError or ValueError for options that do not fit together or are out of range."""
    if args.shape is not None and args.model is not None:
        raise UsageError("-m and --shape exclude each other")
    if args.shape is not None and args.file is not None:
        raise UsageError("-f and --shape exclude each other: a random model reads random tokens")
    if args.shape is None and args.shape_dir is not None:
        raise UsageError("--shape-dir is for --shape")
    if args.shape is not None:
        args.second_look = 0.0  # a random model is unsure of every token
    ours = next((name for name in ("device", "rpc") if getattr(args, name) is not None), None)
    if args.against == LLAMA_CPP and (ours or args.n_gpu_layers == "auto"):
        option = f"--{ours}" if ours else "-ngl auto"
        raise UsageError(f"{option} is lazygguf's, llama-cpp-python takes a number of layers only: add --against none")
    if args.peer is None and (args.peer_python is not None or args.peer_flash_attn is not None):
        raise UsageError("--peer-python and --peer-flash-attn are for --peer")
    if args.peer is not None and (ours or args.n_gpu_layers):
        raise UsageError("--peer ik runs on this machine's CPU: leave out -ngl, --device and --rpc")
    check_least(args, {"n_gen": 1, "repetitions": 1, "threads": 1, "ubatch_size": 1})


def _add_model_arguments(group: Any) -> None:
    add_file_argument(group)
    group.add_argument(
        "--shape",
        choices=sorted(SHAPES),
        help="a model of this shape with random weights: speed and memory of a model that is not at hand. "
        "It reads pseudo-random tokens, and with -md the text, since a draft needs words",
    )
    group.add_argument("--type", metavar="TYPE", default="Q4_K_M", help="of --shape, as for quantize (Q4_K_M)")
    group.add_argument(
        "--shape-dir", metavar="DIR", type=Path, help="keep the file of --shape here, and use it again (default: gone)"
    )
    group.add_argument(
        "--weights",
        choices=("fast", "as-is"),
        default="fast",
        help="how lazygguf keeps them: as-is computes with the file's types only, as llama.cpp does (fast)",
    )
    add_compute_arguments(group)
    add_placement_argument(group)


def _add_run_arguments(group: Any) -> None:
    group.add_argument(
        "-p",
        "--n-prompt",
        action="append",
        metavar="N,...",
        help="prompt lengths in tokens, or a range first-last+step or first-last*factor (512,2048,4096,8192)",
    )
    group.add_argument("-n", "--n-gen", type=int, default=64, metavar="N", help="tokens read one at a time after (64)")
    group.add_argument("-r", "--repetitions", type=int, default=5, metavar="N", help="runs that count (5)")
    group.add_argument(
        "--against", choices=(LLAMA_CPP, "none"), default=LLAMA_CPP, help="what to compare with (llama-cpp-python)"
    )
    group.add_argument("--peer", choices=("ik",), help="another program to measure beside: ik is ik_llama.cpp (none)")
    group.add_argument(
        "--peer-python",
        metavar="PATH",
        help="the Python of the environment that has the peer's package (default: this one, where it is installed)",
    )
    group.add_argument(
        "--peer-flash-attn",
        choices=("on", "off"),
        help="off: the peer reads without, as its package does by itself on most CPUs; slower, and an assertion "
        "of its flash attention cannot fail (on)",
    )
    group.add_argument(
        "--kernels",
        action="store_true",
        help="no model: our products of matrices with rows beside ggml's, by type and number of rows (2 minutes)",
    )
    group.add_argument("-f", "--file", metavar="FILE", help="the text to read (default: 13,000 tokens of prose)")
    group.add_argument(
        "--question",
        metavar="TEXT",
        default=QUESTION,
        help=f'the end of every prompt; "": plain text, which profiles read densely ({QUESTION})',
    )
    group.add_argument(
        "--no-memory",
        dest="memory",
        action="store_false",
        help="do not measure peak memory, which takes a process for each row",
    )


def _add_output_arguments(group: Any) -> None:
    group.add_argument(
        "-o", "--output", choices=("table", "md", "json", "jsonl"), default="table", help="on stdout (table)"
    )
    group.add_argument(
        "--json",
        dest="output",
        action="store_const",
        const="json",
        help="as -o json: llama-bench's fields, and ours",
    )
    group.add_argument("--plot", metavar="PNG", type=Path, help="TTFT against the prompt's length (extra: [plot])")


def run(args: argparse.Namespace) -> int:
    """Runs ``lazygguf bench``; 130 after Ctrl-C, with the lengths that were complete printed."""
    check_arguments(args)
    if args.kernels:
        return run_kernels(args.threads or physical_cores(), as_json=args.output in ("json", "jsonl"))
    if args.plot is not None:
        check_plot(args.plot)
    lengths, keeps, here = parse_lengths(args.n_prompt), split_keeps(args.keep), machine()
    with _model_path(args) as path:
        draft = draft_options(args, path)
        model = model_facts(path, has_draft=args.model_draft is not None)
        peer = None if args.peer is None else find_ik(args.peer_python)
        others = [LLAMA_CPP] * (args.against == LLAMA_CPP) + [IK] * (peer is not None)
        asking = Asking(args.n_query, args.pool, args.max_revive)
        text, question = _text_and_question(args, model, max(lengths) + args.n_gen)
        plan = Plan(
            path=path,
            contenders=contenders(keeps, asking, model.shape, others),
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
                peer_python="" if peer is None else peer.python,
                peer_flash_attn=args.peer_flash_attn != "off",
                **draft,
            ),
            with_memory=args.memory,
        )
        _warn(plan, model)
        rows, interrupted = _measure(plan)
    if rows:
        read = RANDOM if _reads_random(args) else str(args.file or TEXT.name)
        _show(args, rows, Conditions(model, here, plan.settings, read, peer))
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
        say(f"note: {longest:,} tokens are above the {model.n_ctx_train:,} that the model was trained with")


def _measure(plan: Plan) -> tuple[list[Row], bool]:
    """The rows of all complete lengths, and whether Ctrl-C ended the run."""
    rows: list[Row] = []
    try:
        with turn_bar(plan.n_turns) as on_turn:
            for finished in run_plan(plan, on_turn):
                rows += finished
                on_turn.say(f"{finished[0].n_prompt:,} tokens: done")
    except (KeyboardInterrupt, Cancelled):
        say("interrupted" + (": these lengths are complete" if rows else " before a prompt length was complete"))
        return rows, True
    return rows, False


def _show(args: argparse.Namespace, rows: list[Row], conditions: Conditions) -> None:
    title = f"{Path(conditions.model.path).name}: {describe(conditions)}"
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
        where += f" ({conditions.machine.isa})"
        where += f", {conditions.machine.gpu_info}" if settings.n_gpu_layers else ""
        write_plot(rows, args.plot, f"Time to first token: {Path(conditions.model.path).name}", where)
        say(f"wrote {args.plot}")
