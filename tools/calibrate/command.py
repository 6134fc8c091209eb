"""``lazygguf calibrate``: finds, for one model, the cheapest keep schedule that keeps its answers.

A thin main: check the options, record, propose, try, choose, write, print the frontier. Where a draft chooses (-md),
how much it may leave out is tried and nothing is recorded; how a draft scores is ``drafts.py``'s.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from lazygguf.cli.arguments import add_compute_arguments, add_file_argument, check_least, compute_options
from lazygguf.cli.demo import model_or_demo
from lazygguf.cli.main import EXIT_ERROR, EXIT_INTERRUPTED, UsageError
from lazygguf.errors import Cancelled
from lazygguf.model.options import ModelOptions

from ..atomic_file import check_target
from ..eval.command import parse_lengths
from ..eval.engine import Engine
from ..eval.kld import N_CONTINUATION
from ..eval.prompts import Haystack
from ..plot_file import check_plot
from ..progress_bar import say, step_bar
from ..schedule_options import draft_options
from .drafts import find_scoring
from .probes import KINDS, MAX_LISTED, ProbeSource
from .profile import embed_profile, measured, model_notes, write_profile
from .recall import LayerRecall, layer_recalls
from .recording import Recording, record_all, record_heads
from .report import draw, frontier_text
from .search import Proposal, drafted_proposals, propose, shares_near
from .trials import Setting, Trial, Trials, Wanted, choose, race, tune_decode

RECORDING_SHARE = 0.35  # of the time: recording ends then
RACING_SHARE = 0.75  # rounds end about then; the rest is for ways to decode
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


def run(args: argparse.Namespace) -> int:
    """Runs ``lazygguf calibrate``; the exit code is 0, 1 where no schedule holds the target, or 130 after Ctrl-C."""
    check_arguments(args)
    model_path = Path(model_or_demo(args.model))
    out = args.outfile or Path(f"{model_path.stem}.{'scoring' if args.scoring else 'profile'}.json")
    lengths = parse_lengths(args.length)
    try:
        n_ctx = max(lengths) + max(MAX_LISTED, N_CONTINUATION) + 1
        options = ModelOptions(n_ctx=n_ctx, **compute_options(args), **draft_options(args, str(model_path)))
        with Engine(str(model_path), options) as engine:
            if args.scoring:
                return find_scoring(args, engine, out, lengths, _work_folder(args, out))
            return _Calibration(args, engine, lengths, out).run()
    except (KeyboardInterrupt, Cancelled):
        say(f"stopped; the same command goes on from here ({_work_folder(args, out)})")
        return EXIT_INTERRUPTED


class _Calibration:
    """One calibration, in the order of its steps."""

    def __init__(self, args: argparse.Namespace, engine: Engine, lengths: list[int], out: Path) -> None:
        self._args, self._engine, self._lengths, self._out = args, engine, lengths, out
        self._begin = time.monotonic()
        self._folder = _work_folder(args, out) / f"{engine.identity}-{args.length}-{args.seed}"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._probes = ProbeSource(Haystack.read(args.file), engine.prompter, args.seed)

    def run(self) -> int:
        recordings, layers, proposals = self._proposals()
        trials = Trials(Setting(self._engine, self._probes, self._lengths, self._args.seed, self._folder))
        wanted = Wanted(self._args.target, self._args.max_kld, self._args.share)
        with step_bar("trying schedules", "answers") as progress:
            found = race(trials, proposals, wanted, self._until(RACING_SHARE), progress)
            chosen = choose(found, wanted)
            if chosen is not None and not self._engine.shape.has_draft:
                chosen, tuned = tune_decode(trials, chosen, wanted, self._until(1.0), progress)
                found += tuned
        sys.stdout.write(frontier_text(found, chosen))
        if self._args.plot is not None:
            draw(self._args.plot, Path(self._engine.path).name, recordings, found)
        return self._write(chosen, found, layers)

    def _proposals(self) -> tuple[list[Recording], list[LayerRecall], list[Proposal]]:
        """What is tried, and what it was found by: nothing where a draft chooses."""
        if self._engine.shape.has_draft:
            return [], [], drafted_proposals(self._args.share)
        recordings = self._record()
        n_layer = self._engine.shape.n_layer
        layers: list[LayerRecall] = []
        with step_bar("searching", "layers") as progress:
            for layer in layer_recalls(recordings, n_layer):
                layers.append(layer)
                progress(layer.il, n_layer - 1)
        return recordings, layers, propose(layers, recordings, n_layer, shares_near(self._args.share))

    def _record(self) -> list[Recording]:
        names = [(kind, i) for i in range(self._args.samples) for kind in KINDS]
        n_least = 2 * len(KINDS)

        def is_late(n: int) -> bool:
            return n >= n_least and time.monotonic() > self._until(RECORDING_SHARE)

        with self._engine.attention_reader(max(self._lengths)) as reader:
            return record_all(reader, self._folder, names, self._probes.in_turn(self._lengths), record_heads, is_late)

    def _until(self, share: float) -> float:
        return self._begin + 60.0 * float(self._args.minutes) * share

    def _write(self, chosen: Optional[Trial], found: Sequence[Trial], layers: Sequence[LayerRecall]) -> int:
        if chosen is None or chosen.schedule is None:
            say("no schedule holds the target: nothing is written; a lower --target or more --minutes may find one")
            return EXIT_ERROR
        args = self._args
        made = {"length": self._lengths, "seed": args.seed, "target": args.target, "max_kld": args.max_kld}
        if args.share is not None:
            made["max_share"] = args.share
        notes = {**made, **chosen.figures.to_dict(), **measured(found, layers)}
        profile = {"model": model_notes(self._engine), **chosen.schedule.to_dict(), "measurements": notes}
        write_profile(self._out, profile)
        draft = "" if args.model_draft is None else f" -md {args.model_draft}"
        say(f"wrote {self._out}; use it with --keep {self._out}{draft}")
        if args.embed is not None:
            embed_profile(Path(self._engine.path), args.embed, profile)
            say(f'wrote {args.embed}; keep "auto" finds the profile in it')
        return 0


def _work_folder(args: argparse.Namespace, out: Path) -> Path:
    return Path(args.work or out.with_suffix(".calibration"))
