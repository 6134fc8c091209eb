"""The options of ``lazygguf bench``, spelled as llama-bench spells them where it has them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lazygguf.cli.arguments import (
    add_compute_arguments,
    add_draft_arguments,
    add_file_argument,
    add_placement_argument,
    check_least,
)
from lazygguf.cli.main import UsageError

from ..keep_options import Asking, add_schedule_arguments
from .contenders import LLAMA_CPP
from .shapes import SHAPES
from .text import QUESTION

_EPILOG = """\
Every prompt length is read by llama.cpp, dense ("off", always there) and with each schedule, in turn, -r times
after a warm-up of each: same text and question, threads, n_ubatch, flash attention, F16 K/V cache. After the prompt
the next -n tokens of the text are read one at a time. TTFT is everything that is needed to go on decoding: the
prompt read, its logits, the first token sampled. Ratios are medians over the pairs of one round, above 1 is faster
than dense or llama.cpp. "ideal" is 1 / share of the dense work, a draft's work included; "reached" is the share of it
that the prefill came to. With a draft (-md) TTFT holds its time too; --shape takes no second look.
"peak" is the resident memory of a process that does one such run alone. "logits" is a hash of the logits' bits
after the prompt: equal hashes mean equal to the last bit, as dense and llama.cpp are with --weights as-is.

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
    check_least(args, {"n_gen": 1, "repetitions": 1, "threads": 1, "ubatch_size": 1})


def asking_of(args: argparse.Namespace) -> Asking:
    """Who asks in spelled schedules."""
    return Asking(args.n_query, args.pool, args.max_revive)


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
    add_draft_arguments(group)
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
