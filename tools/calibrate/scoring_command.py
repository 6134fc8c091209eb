"""``lazygguf calibrate --scoring``: finds how a small model scores best as a draft of larger ones.

A thin main: glance, search, measure on fresh probes, write, print a row for each depth. It needs no large model: a
draft is right where it wants the tokens that answer, whoever answers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lazygguf.cli.terminal import interrupt_cancels
from lazygguf.files.model_file import ModelFile
from lazygguf.model.options import ModelOptions
from lazygguf.model.parts import load_weights
from lazygguf.read.attention import AttentionReader
from lazygguf.schedule.scoring import SCORING_KEY, ScoringProfile
from lazygguf.text.tokenizer import Tokenizer
from lazygguf.threads import physical_cores

from ..eval.haystack import Haystack
from ..eval.prompts import Prompter
from ..progress_bar import step_bar
from .glance import Glance, glance
from .probes import DRAFT_KINDS, ProbeSource
from .profile import embed_profile, model_notes, write_profile
from .recall import Shares, loss
from .scoring_search import Found, by_depth, choose, needed
from .trial import FIRST_VERIFIED
from .verify import AFTER

N_FRESH = 2  # probes of each kind that the search has not seen

_HEAD = (
    f"  {'layers read':>11} {'scores of':>10} {'asked by':>9} {'over':>5} {'pool':>8} {'needed':>7} {'worst':>6} "
    f"{'fresh':>6}"
)


def find_scoring(args: argparse.Namespace, model_path: Path, out: Path, lengths: Sequence[int], folder: Path) -> int:
    """Runs the calibration of a draft; 0."""
    file = ModelFile.read(str(model_path))
    folder = folder / f"scoring-{file.fingerprint or model_path.stem}-{args.length}-{args.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    glances, fresh = _glances(args, file, lengths, folder)
    found: list[Found] = []
    with step_bar("looking", "layers") as progress:
        for each in by_depth(glances):
            found.append(each)
            progress(each.profile.n_layer, len(file.size.by_layer))
    chosen = choose(found)
    sys.stdout.write(scoring_text(found, chosen, fresh))
    _write(args, file, model_path, out, found, chosen, fresh)
    return 0


def _glances(
    args: argparse.Namespace, file: ModelFile, lengths: Sequence[int], folder: Path
) -> tuple[list[Glance], list[Glance]]:
    """Those that the search goes by, and those that it does not see."""
    names = [(kind, i) for i in range(args.samples) for kind in DRAFT_KINDS]
    names += [(kind, FIRST_VERIFIED + i) for i in range(N_FRESH) for kind in DRAFT_KINDS]
    options = ModelOptions(n_threads=args.threads, n_ubatch=args.ubatch_size)
    tokenizer = Tokenizer(file.path)
    weights = load_weights(file.path, options)
    probes = ProbeSource(Haystack.read(args.file), Prompter(tokenizer, file.metadata), args.seed)
    n_threads = args.threads or physical_cores()
    with AttentionReader(weights, n_ctx=max(lengths), n_ubatch=args.ubatch_size, n_threads=n_threads) as reader:
        looked = [_looked_up(*name, probes, lengths, reader, folder) for name in _told(names, reader)]
    weights.close()
    tokenizer.close()
    n_seen = args.samples * len(DRAFT_KINDS)
    return looked[:n_seen], looked[n_seen:]


def _told(names: Sequence[tuple[str, int]], reader: AttentionReader) -> Iterator[tuple[str, int]]:
    """The names, with a progress bar; Ctrl-C stops the reader."""
    with step_bar("glancing", "probes") as progress, interrupt_cancels(reader.cancel):
        for n, name in enumerate(names):
            progress(n, len(names))
            yield name


def _looked_up(
    kind: str, index: int, probes: ProbeSource, lengths: Sequence[int], reader: AttentionReader, folder: Path
) -> Glance:
    """From the folder, where an earlier run left it, else read now."""
    path = folder / f"{kind}-{index}.npz"
    if not path.exists():
        glance(reader, probes.probe(kind, AFTER, index, lengths[index % len(lengths)])).save(path)
    return Glance.load(path)


def scoring_text(found: Sequence[Found], chosen: Found, fresh: Sequence[Glance]) -> str:
    """The best profile of each depth; a star marks the chosen one."""
    lines = [_HEAD]
    for each in found:
        profile, mark = each.profile, "*" if each is chosen else ""
        lines.append(
            f"{mark:2}{profile.n_layer:11} {_span(profile):>10} {profile.n_query!s:>9} {profile.over_query:>5} "
            f"{_pool(profile):>8} {each.needed.mean():7.3f} {each.needed.max():6.3f} "
            f"{needed(fresh, profile).mean():6.3f}"
        )
    lines.append(
        "needed: share of the tokens that must be read for all that answers, mean and worst of the probes that"
    )
    lines.append("the search went by; fresh: mean of probes that it did not see")
    return "\n".join(lines) + "\n"


def _write(
    args: argparse.Namespace,
    file: ModelFile,
    model_path: Path,
    out: Path,
    found: Sequence[Found],
    chosen: Found,
    fresh: Sequence[Glance],
) -> None:
    name = str(file.metadata.get("general.name", model_path.stem))
    notes = {
        "length": args.length,
        "seed": args.seed,
        **_figures(chosen.needed),
        "fresh": _figures(needed(fresh, chosen.profile)),
        "by_depth": [{**each.profile.to_dict(), **_figures(each.needed)} for each in found],
    }
    profile = {"model": model_notes(name, file.fingerprint), **chosen.profile.to_dict(), "measurements": notes}
    write_profile(out, profile)
    print(f'wrote {out}; LazyModel(..., draft=..., scoring="{out}") uses it', file=sys.stderr)
    if args.embed is not None:
        embed_profile(model_path, args.embed, profile, SCORING_KEY)
        print(f"wrote {args.embed}; as a draft (-md) it scores so", file=sys.stderr)


def _figures(shares: Shares) -> dict[str, Any]:
    return {
        "n": len(shares),
        "needed_mean": round(float(shares.mean()), 4),
        "needed_max": round(float(shares.max()), 4),
        "loss": round(loss(shares), 4),
    }


def _span(profile: ScoringProfile) -> str:
    first, last = profile.layers[0], profile.layers[-1]
    return str(last) if first == last else f"{first}-{last}"


def _pool(profile: ScoringProfile) -> str:
    return str(profile.pool) if isinstance(profile.pool, int) else "-{}+{}".format(*profile.pool)
