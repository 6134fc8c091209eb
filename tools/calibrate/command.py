"""``lazygguf calibrate``: finds, for one model, the cheapest keep schedule that keeps its answers.

A thin main: record, propose, try, choose, write, print the frontier. Where a draft chooses (-md), how much it may leave
out is tried and nothing is recorded; how a draft scores is ``scoring_command.py``'s.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from lazygguf.cli.arguments import compute_options
from lazygguf.cli.demo import model_or_demo
from lazygguf.cli.main import EXIT_ERROR, EXIT_INTERRUPTED
from lazygguf.errors import Cancelled
from lazygguf.model.options import ModelOptions

from ..eval.engine import Engine, Reader
from ..eval.haystack import Haystack
from ..eval.kld import N_CONTINUATION
from ..eval.methods import DENSE, Method
from ..eval.options import parse_lengths
from ..progress_bar import step_bar
from ..schedule_options import draft_options
from .options import check_arguments
from .plot import draw
from .probes import KINDS, MAX_LISTED, ProbeSource
from .profile import embed_profile, measured, model_notes, profile_of, write_profile
from .recording import Recording, record
from .scoring_command import find_scoring
from .search import Proposal, drafted_proposals, propose, shares_near
from .sight import Sight, sights
from .trial import Setting, Trial, Trials, Wanted, choose, race, tune_decode
from .verify import AFTER, decode_way

RECORDING_SHARE = 0.35  # of the time: recording ends then
RACING_SHARE = 0.75  # rounds end about then; the rest is for ways to decode


def run(args: argparse.Namespace) -> int:
    """Runs ``lazygguf calibrate``; the exit code is 0, 1 where no schedule holds the target, or 130 after Ctrl-C."""
    check_arguments(args)
    model_path = Path(model_or_demo(args.model))
    out = args.outfile or Path(f"{model_path.stem}.{'scoring' if args.scoring else 'profile'}.json")
    try:
        if args.scoring:
            return find_scoring(args, model_path, out, parse_lengths(args.length), _work_folder(args, out))
        n_ctx = max(parse_lengths(args.length)) + max(MAX_LISTED, N_CONTINUATION) + 1
        options = ModelOptions(n_ctx=n_ctx, **compute_options(args), **draft_options(args, str(model_path)))
        with Engine(str(model_path), options) as engine:
            return _Calibration(args, engine, model_path, out).run()
    except (KeyboardInterrupt, Cancelled):
        _say(f"stopped; the same command goes on from here ({_work_folder(args, out)})")
        return EXIT_INTERRUPTED


class _Calibration:
    """One calibration, in the order of its steps."""

    def __init__(self, args: argparse.Namespace, engine: Engine, model_path: Path, out: Path) -> None:
        self._args, self._engine, self._model_path, self._out = args, engine, model_path, out
        self._begin = time.monotonic()
        self._lengths = parse_lengths(args.length)
        self._folder = _work_folder(args, out) / f"{engine.identity}-{args.length}-{args.seed}"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._probes = ProbeSource(Haystack.read(args.file), engine.prompter, args.seed)

    def run(self) -> int:
        recordings, seen, proposals = self._proposals()
        trials, wanted = self._trials(), Wanted(self._args.target, self._args.max_kld, self._args.share)
        with step_bar("trying schedules", "answers") as progress:
            found = race(trials, proposals, wanted, self._until(RACING_SHARE), progress)
            chosen = choose(found, wanted)
            if chosen is not None and not self._engine.shape.has_draft:
                chosen, tuned = tune_decode(trials, chosen, wanted, self._until(1.0), progress)
                found += tuned
        sys.stdout.write(frontier_text(found, chosen))
        if self._args.plot is not None:
            draw(self._args.plot, self._model_path.name, recordings, found)
        return self._write(chosen, found, seen)

    def _proposals(self) -> tuple[list[Recording], list[Sight], list[Proposal]]:
        """What is tried, and what it was found by: nothing where a draft chooses."""
        if self._engine.shape.has_draft:
            return [], [], drafted_proposals(self._args.share)
        recordings = self._record()
        seen = self._see(recordings)
        shares = shares_near(self._args.share)
        return recordings, seen, propose(seen, recordings, self._engine.shape.n_layer, shares)

    def _record(self) -> list[Recording]:
        reader: Optional[Reader] = None
        recordings: list[Recording] = []
        names = [(kind, i) for i in range(self._args.samples) for kind in KINDS]
        with step_bar("recording", "probes") as progress:
            for n, (kind, i) in enumerate(names):
                progress(n, len(names))
                path = self._folder / f"{kind}-{i}.npz"
                if not path.exists():
                    if n >= 2 * len(KINDS) and time.monotonic() > self._until(RECORDING_SHARE):
                        break
                    reader = reader or self._engine.reader(Method(DENSE, DENSE, None))
                    length = self._lengths[i % len(self._lengths)]
                    record(reader, self._probes.probe(kind, AFTER, i, length)).save(path)
                recordings.append(Recording.load(path))
        return recordings

    def _see(self, recordings: list[Recording]) -> list[Sight]:
        n_layer = self._engine.shape.n_layer
        seen: list[Sight] = []
        with step_bar("looking", "layers") as progress:
            for sight in sights(recordings, n_layer):
                seen.append(sight)
                progress(sight.il, n_layer - 1)
        return seen

    def _trials(self) -> Trials:
        args = self._args
        return Trials(Setting(self._engine, self._probes, tuple(self._lengths), args.seed, self._folder))

    def _until(self, share: float) -> float:
        return self._begin + 60.0 * float(self._args.minutes) * share

    def _write(self, chosen: Optional[Trial], found: Sequence[Trial], seen: Sequence[Sight]) -> int:
        if chosen is None or chosen.schedule is None:
            _say("no schedule holds the target: nothing is written; a lower --target or more --minutes may find one")
            return EXIT_ERROR
        args = self._args
        name = str(self._engine.shape.metadata.get("general.name", self._model_path.stem))
        made = {"length": self._lengths, "seed": args.seed, "target": args.target, "max_kld": args.max_kld}
        if args.share is not None:
            made["max_share"] = args.share
        notes = {**made, **chosen.figures.to_dict(), **measured(found, seen)}
        profile = profile_of(chosen.schedule, model_notes(name, self._engine.fingerprint), notes)
        write_profile(self._out, profile)
        draft = "" if args.model_draft is None else f" -md {args.model_draft}"
        _say(f"wrote {self._out}; use it with --keep {self._out}{draft}")
        if args.embed is not None:
            embed_profile(self._model_path, args.embed, profile)
            _say(f'wrote {args.embed}; keep "auto" finds the profile in it')
        return 0


_COLUMNS = (("n", 3), ("quality", 7), ("kept", 6), ("first", 6), ("speed-up", 8), ("share", 6), ("kld", 6), ("rows", 5))
_LEGEND = """\
quality: score / dense score on fresh probes; kept: the same, gains in one kind not paying for losses in another; first:
quality with the question before the text; speed-up: 1 / share of the dense work; rows: computed per decoded token;
decode: tokens that a step may bring back, by which margin and how many on average, and what is not left whole
"""


def frontier_text(found: Sequence[Trial], chosen: Optional[Trial]) -> str:
    """All schedules tried, cheapest first; a star marks the chosen one."""
    lines = [" ".join(["  schedule".ljust(36), *(name.rjust(width) for name, width in _COLUMNS), " decode"])]
    for trial in sorted(found, key=lambda trial: trial.figures.share):
        f, mark = trial.figures, "*" if trial is chosen else ""
        values = [str(f.n), f"{f.quality:.3f}", f"{f.kept:.3f}", _or_dash(f.question_first), f"{1 / f.share:.2f}x"]
        values += [f"{f.share:.3f}", f"{f.kld:.3f}", f"{f.rows:.2f}"]
        shown = (value.rjust(width) for value, (_, width) in zip(values, _COLUMNS))
        lines.append(" ".join([f"{mark:2}{trial.label:34}", *shown, f" {decode_way(trial.schedule)}"]))
    return "\n".join(lines) + "\n" + _LEGEND


def _or_dash(ratio: Optional[float]) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def _work_folder(args: argparse.Namespace, out: Path) -> Path:
    folder: Any = args.work or out.with_suffix(".calibration")
    return Path(folder)


def _say(line: str) -> None:
    print(line, file=sys.stderr)
