"""``lazygguf calibrate --scoring``: how a small model scores best as a draft of larger ones.

Owns the search over scoring profiles (which layers, who asks, how far a score is spread) and its figures on fresh
probes. It needs no large model: a draft is right where it wants the tokens that answer, whoever answers. Scores are
those of ``lazygguf.draft.draft``.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Union

import numpy as np

from lazygguf.read.scores import Scores, pooled
from lazygguf.schedule.keep_schedule import QUESTION
from lazygguf.schedule.scoring import MAX, MEAN, SCORING_KEY, ScoringProfile

from ..eval.engine import Engine
from ..eval.prompts import Haystack
from ..progress_bar import step_bar
from .probes import DRAFT_KINDS, FIRST_FRESH, ProbeSource
from .profile import embed_profile, model_notes, write_profile
from .recall import Shares, loss, needed_share
from .recording import BY_QUERY, Recording, record_all, record_queries

FIRST_DEPTH, LAST_DEPTH = 0.2, 0.85  # of the layers: where a draft may stop; later ones cost and add nothing
WIDTHS = (1, 2, 3, 4, 6, 10)  # layers whose best counts, up to the last one read
QUERIES: tuple[Union[int, str], ...] = (QUESTION, 24, 8)
POOLS: tuple[Union[int, tuple[int, int]], ...] = (1, 7, 13, 21, 31, (10, 5), (20, 10), (30, 15), (6, 24))
SLACK = 0.02  # of the loss: a draft that stops earlier and is hardly worse is taken, since each layer costs time
N_FRESH = 2  # probes of each kind that the search has not seen

_HEAD = (
    f"  {'layers read':>11} {'scores of':>10} {'asked by':>9} {'over':>5} {'pool':>8} {'needed':>7} {'worst':>6} "
    f"{'fresh':>6}"
)
_LEGEND = """\
needed: share of the tokens that must be read for all that answers, mean and worst of the probes that
the search went by; fresh: mean of probes that it did not see
"""


@dataclass(frozen=True)
class Found:
    """A scoring profile and the share that must be read for all evidence, by recording."""

    profile: ScoringProfile
    needed: Shares

    @property
    def loss(self) -> float:
        """One figure, lower is better."""
        return loss(self.needed)


def scores(recording: Recording, profile: ScoringProfile) -> Scores:
    """(n_tokens,), as a draft with this profile gives them."""
    return _pooled(_best(recording, profile), profile)


def needed(recordings: Sequence[Recording], profile: ScoringProfile) -> Shares:
    """``needed_share`` of each recording, (n_recordings,)."""
    return np.array([needed_share(scores(r, profile), r) for r in recordings])


def by_depth(recordings: Sequence[Recording]) -> Iterator[Found]:
    """The best profile that reads up to each layer, the shallowest first; yields as it goes."""
    n_layer = len(recordings[0].attention[BY_QUERY])
    for il in range(int(FIRST_DEPTH * n_layer), max(int(LAST_DEPTH * n_layer), int(FIRST_DEPTH * n_layer) + 1)):
        yield min(_at(recordings, il), key=lambda found: found.loss)


def choose(found: Sequence[Found]) -> Found:
    """The shallowest that is nearly as good as the best."""
    least = min(each.loss for each in found)
    good = [each for each in found if each.loss <= least + SLACK]
    return min(good, key=lambda each: each.profile.n_layer)


def _at(recordings: Sequence[Recording], il: int) -> Iterator[Found]:
    for width, over, n_query in itertools.product(WIDTHS, (MAX, MEAN), QUERIES):
        if width > il + 1:
            continue
        plain = ScoringProfile(tuple(range(il - width + 1, il + 1)), n_query=n_query, over_query=over)
        best = [_best(recording, plain) for recording in recordings]
        for pool in POOLS:
            profile = replace(plain, pool=pool)
            shares = [needed_share(_pooled(row, profile), r) for row, r in zip(best, recordings)]
            yield Found(profile, np.array(shares))


def _best(recording: Recording, profile: ScoringProfile) -> Scores:
    """(n_tokens,) before pooling: the most that any of the layers gives."""
    rows = recording.attention[BY_QUERY][list(profile.layers), -profile.max_query :].astype(np.float32)
    asked = rows.max(axis=1) if profile.over_query == MAX else rows.mean(axis=1)
    return np.asarray(asked.max(axis=0))


def _pooled(scores: Scores, profile: ScoringProfile) -> Scores:
    return pooled(scores, *profile.around).astype(np.float32)


def find_scoring(args: argparse.Namespace, engine: Engine, out: Path, lengths: Sequence[int], folder: Path) -> int:
    """Runs the calibration of a draft; 0."""
    folder = folder / f"scoring-{engine.fingerprint or Path(engine.path).stem}-{args.length}-{args.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    probes = ProbeSource(Haystack.read(args.file), engine.prompter, args.seed)
    names = [(kind, i) for i in range(args.samples) for kind in DRAFT_KINDS]
    names += [(kind, FIRST_FRESH + i) for i in range(N_FRESH) for kind in DRAFT_KINDS]
    with engine.attention_reader(max(lengths)) as reader:
        recordings = record_all(reader, folder, names, probes.in_turn(lengths), record_queries)
    n_seen = args.samples * len(DRAFT_KINDS)
    found: list[Found] = []
    with step_bar("searching", "layers") as progress:
        for each in by_depth(recordings[:n_seen]):
            found.append(each)
            progress(each.profile.n_layer, engine.shape.n_layer)
    chosen, fresh = choose(found), recordings[n_seen:]
    sys.stdout.write(scoring_text(found, chosen, fresh))
    _write(args, engine, out, found, chosen, fresh)
    return 0


def scoring_text(found: Sequence[Found], chosen: Found, fresh: Sequence[Recording]) -> str:
    """The best profile of each depth; a star marks the chosen one."""
    lines = [_HEAD]
    for each in found:
        profile, mark = each.profile, "*" if each is chosen else ""
        lines.append(
            f"{mark:2}{profile.n_layer:11} {_span(profile):>10} {profile.n_query!s:>9} {profile.over_query:>5} "
            f"{_pool(profile):>8} {each.needed.mean():7.3f} {each.needed.max():6.3f} "
            f"{needed(fresh, profile).mean():6.3f}"
        )
    return "\n".join(lines) + "\n" + _LEGEND


def _write(
    args: argparse.Namespace,
    engine: Engine,
    out: Path,
    found: Sequence[Found],
    chosen: Found,
    fresh: Sequence[Recording],
) -> None:
    notes = {
        "length": args.length,
        "seed": args.seed,
        **_figures(chosen.needed),
        "fresh": _figures(needed(fresh, chosen.profile)),
        "by_depth": [{**each.profile.to_dict(), **_figures(each.needed)} for each in found],
    }
    profile = {"model": model_notes(engine), **chosen.profile.to_dict(), "measurements": notes}
    write_profile(out, profile)
    print(f'wrote {out}; LazyModel(..., draft=..., scoring="{out}") uses it', file=sys.stderr)
    if args.embed is not None:
        embed_profile(Path(engine.path), args.embed, profile, SCORING_KEY)
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
