"""What a calibration found, for people: the schedules tried as a table, and as a picture.

The picture shows which heads see the answer, and speed against kept quality. It needs the extra ``[plot]``
(matplotlib), which is imported when it is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from .recall import recall_map
from .recording import Recording
from .trials import Trial, decode_way

MAP_KEEP = 0.2  # share of the tokens, for the heat map
MAP_POOL = 21
_BLUE, _ORANGE = "#0072B2", "#D55E00"
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
        first = "-" if f.question_first is None else f"{f.question_first:.2f}"
        values = [str(f.n), f"{f.quality:.3f}", f"{f.kept:.3f}", first, f"{1 / f.share:.2f}x"]
        values += [f"{f.share:.3f}", f"{f.kld:.3f}", f"{f.rows:.2f}"]
        shown = (value.rjust(width) for value, (_, width) in zip(values, _COLUMNS))
        lines.append(" ".join([f"{mark:2}{trial.label:34}", *shown, f" {decode_way(trial.schedule)}"]))
    return "\n".join(lines) + "\n" + _LEGEND


def draw(path: Path, title: str, recordings: Sequence[Recording], trials: Sequence[Trial]) -> None:
    """Writes the plot, a PNG. Where a draft chooses there are no recordings, and no map."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11 if recordings else 5.5, 4.8), dpi=150, layout="constrained")
    if recordings:
        left, right = figure.subplots(1, 2, width_ratios=(1.3, 1.0))
        _draw_map(figure, left, recordings)
    else:
        right = figure.subplots()
    _draw_frontier(right, trials)
    figure.suptitle(title, x=0.02, ha="left", fontsize=12, fontweight="bold")
    figure.savefig(path, format="png")


def _draw_map(figure: Any, axes: Any, recordings: Sequence[Recording]) -> None:
    seen = recall_map(recordings, "max", MAP_POOL, MAP_KEEP)
    image = axes.imshow(seen.T, origin="lower", aspect="auto", cmap="viridis", vmin=0, vmax=1)
    axes.set_xlabel("layer")
    axes.set_ylabel("head")
    axes.set_title(f"probes whose evidence is among the best {MAP_KEEP:.0%} of a head", loc="left", fontsize=9)
    figure.colorbar(image, ax=axes)


def _draw_frontier(axes: Any, trials: Sequence[Trial]) -> None:
    for trial in trials:
        is_paper = trial.schedule is not None and not trial.schedule.decode_cached and trial.schedule.n_sink == 0
        axes.plot(
            1.0 / trial.figures.share,
            trial.figures.quality,
            marker="s" if is_paper else "o",
            color=_ORANGE if is_paper else _BLUE,
            markersize=3 + trial.figures.n**0.5,
            linestyle="none",
        )
        if is_paper:
            axes.annotate("the paper's rule", (1.0 / trial.figures.share, trial.figures.quality), fontsize=8)
    axes.axhline(1.0, color="#aaaaaa", linewidth=0.8)
    axes.set_xlabel("speed-up of reading, 1 / share of the dense work")
    axes.set_ylabel("score / dense score on fresh probes")
    axes.set_ylim(0, max(1.1, 1.05 * max(trial.figures.quality for trial in trials)))
    axes.set_title("schedules tried; larger marks were asked more", loc="left", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
