"""The options of ``lazygguf calibrate``: declared, read and checked before a model is opened."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Optional

from lazygguf.cli.arguments import add_compute_arguments, add_draft_arguments, add_file_argument, check_least
from lazygguf.cli.main import UsageError

from ..atomic_file import check_target
from ..eval.options import parse_lengths
from ..plot_file import check_plot

LEAST_LENGTH = 300  # room for the facts and text between them
_SCHEDULE_OPTIONS: dict[str, tuple[Optional[float], str]] = {  # of a schedule's calibration: default, and what it is
    "target": (0.99, "of the dense score"),
    "max_kld": (0.05, "of continuation tokens"),
    "share": (None, "of the dense work: the surest schedule of at most so much, not the cheapest that holds"),
    "minutes": (20.0, "ask no more than fits into them"),
}

_EPILOG = """\
Three steps, each kept in the folder --work, so that a stopped calibration goes on where it was: prompts of its own are
read densely and what each head looks at is recorded; schedules are proposed from what each layer sees; the proposals
answer fresh prompts in the engine, and the cheapest one that holds --target and --max-kld becomes the profile; with
--share the surest one with at most so much work: the one that loses the least in any kind of question.
Use it with --keep PROFILE.json, or embed it: keep "auto" finds it there.

With a draft (-md) the schedules that are tried have one point before layer 0: how little of the prompt the model must
read where the draft chooses. --scoring asks how a small model chooses best when it is a draft: which of its layers see
what answers; the profile is for scoring= of LazyModel, or embedded for -md."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options, spelled as llama.cpp spells those it has."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    model = parser.add_argument_group("model")
    add_file_argument(model)
    add_draft_arguments(model)
    add_compute_arguments(model)
    made = parser.add_argument_group("what is made")
    made.add_argument("-o", "--outfile", type=Path, metavar="PROFILE.json", help="(MODEL.profile.json, here)")
    made.add_argument("--scoring", action="store_true", help="how the model scores as a draft, instead of a schedule")
    made.add_argument("--embed", type=Path, metavar="OUT.gguf", help="a copy of the model with the profile inside")
    made.add_argument("--force", action="store_true", help="replace OUT.gguf")
    made.add_argument("--plot", type=Path, metavar="FILE.png", help="heat map and frontier (needs matplotlib)")
    made.add_argument("--work", type=Path, metavar="DIR", help="recordings and answers (PROFILE.calibration)")
    asked = parser.add_argument_group("what is asked")
    for name, (default, what) in _SCHEDULE_OPTIONS.items():
        shown = what if default is None else f"{what} ({default:g})"
        asked.add_argument(_option(name), type=float, metavar="X", help=shown)
    asked.add_argument(
        "--length", default="1000,600,1600", metavar="N,N", help="tokens of the prompts, in turn (1000,600,1600)"
    )
    asked.add_argument("--samples", type=int, default=4, metavar="N", help="recorded probes of each kind (4)")
    asked.add_argument("-s", "--seed", type=int, default=1, metavar="N", help="the same seed, the same prompts (1)")
    asked.add_argument("-f", "--file", metavar="FILE", help="text that the prompts are made of (one that ships)")


def check_arguments(args: argparse.Namespace) -> None:
    """Refuses what cannot work.

    Raises:
        ValueError, OSError, ImportError: an option's value is wrong, or a file cannot be written.
    """
    check_least(args, {"samples": 2, "ubatch_size": 1, "threads": 1})
    if min(parse_lengths(args.length)) < LEAST_LENGTH:
        raise ValueError(f'--length "{args.length}": expected {LEAST_LENGTH} tokens or more')
    _check_scoring(args)
    _check_schedule_options(args)
    if args.model_draft is not None and args.embed is not None:
        raise UsageError("--embed: a schedule that needs a draft is not put into the model; use the file with --keep")
    for path in (args.outfile, args.work):
        if path is not None and not path.absolute().parent.is_dir():
            raise FileNotFoundError(f"{path}: the folder {path.absolute().parent} does not exist")
    if args.embed is not None:
        check_target(args.embed, args.force)
    if args.plot is not None:
        check_plot(args.plot)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _check_schedule_options(args: argparse.Namespace) -> None:
    """Puts the defaults in, and refuses values that cannot be held."""
    for name, (default, _) in _SCHEDULE_OPTIONS.items():
        if getattr(args, name) is None:
            setattr(args, name, default)
        value, most = getattr(args, name), 1.0 if name in ("target", "share") else None
        if value is not None and not 0 < value <= (most or value):
            raise ValueError(f"{_option(name)} {value:g}: expected a value above 0" + (" up to 1" if most else ""))


def _check_scoring(args: argparse.Namespace) -> None:
    """Refuses what --scoring would not look at."""
    if not args.scoring:
        return
    names = ("model_draft", "plot", *_SCHEDULE_OPTIONS)
    given = next((name for name in names if getattr(args, name) is not None), None)
    if given is not None:
        option = "-md" if given == "model_draft" else _option(given)
        raise UsageError(f"{option} is for schedules, --scoring finds none")
