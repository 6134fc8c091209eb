"""The options of ``lazygguf calibrate``: declared, read and checked before a model is opened."""

from __future__ import annotations

import argparse
from pathlib import Path

from lazygguf.model_arguments import add_compute_arguments, add_file_argument, check_least

from ..atomic_file import check_target
from ..eval.options import parse_lengths
from ..plot_file import check_plot

LEAST_LENGTH = 300  # room for the facts and text between them

_EPILOG = """\
Three steps, each kept in the folder --work, so that a stopped calibration goes on where it was: prompts of its own are
read densely and what each head looks at is recorded; schedules are proposed from what each layer sees; the proposals
answer fresh prompts in the engine, and the cheapest one that holds --target and --max-kld becomes the profile.
Use it with --keep PROFILE.json, or embed it: keep "auto" finds it there."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options, spelled as llama.cpp spells those it has."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    model = parser.add_argument_group("model")
    add_file_argument(model)
    add_compute_arguments(model)
    made = parser.add_argument_group("what is made")
    made.add_argument("-o", "--outfile", type=Path, metavar="PROFILE.json", help="(MODEL.profile.json, here)")
    made.add_argument("--embed", type=Path, metavar="OUT.gguf", help="a copy of the model with the profile inside")
    made.add_argument("--force", action="store_true", help="replace OUT.gguf")
    made.add_argument("--plot", type=Path, metavar="FILE.png", help="heat map and frontier (needs matplotlib)")
    made.add_argument("--work", type=Path, metavar="DIR", help="recordings and answers (PROFILE.calibration)")
    asked = parser.add_argument_group("what is asked")
    asked.add_argument("--target", type=float, default=0.99, metavar="X", help="of the dense score (0.99)")
    asked.add_argument("--max-kld", type=float, default=0.05, metavar="X", help="of continuation tokens (0.05)")
    asked.add_argument("--minutes", type=float, default=20.0, metavar="N", help="ask no more than fits into them (20)")
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
    for name, most in (("target", 1.0), ("max_kld", None), ("minutes", None)):
        value = getattr(args, name)
        if not 0 < value <= (most or value):
            raise ValueError(
                f"--{name.replace('_', '-')} {value:g}: expected a value above 0" + (" up to 1" if most else "")
            )
    for path in (args.outfile, args.work):
        if path is not None and not path.absolute().parent.is_dir():
            raise FileNotFoundError(f"{path}: the folder {path.absolute().parent} does not exist")
    if args.embed is not None:
        check_target(args.embed, args.force)
    if args.plot is not None:
        check_plot(args.plot)
