"""What a calibration found as a PNG: which heads see the answer, and speed against kept quality.

Needs the extra ``[plot]`` (matplotlib).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .recall import recall_map
from .recording import Recording
from .trial import Trial

MAP_KEEP = 0.2  # share of the tokens, for the heat map
MAP_POOL = 21
_BLUE, _ORANGE = "#0072B2", "#D55E00"


def draw(path: Path, title: str, recordings: Sequence[Recording], trials: Sequence[Trial]) -> None:
    """Writes the plot.

    Args:
        path: a PNG file, replaced where it exists.
        title: the model.
        recordings: of the probes; none where a draft chooses, and there is no map.
        trials: all schedules tried, the paper's rule among them.
    """
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
