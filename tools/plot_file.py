"""Where a tool writes a plot; drawing needs the extra ``[plot]`` (matplotlib)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def check_plot(path: Path) -> None:
    """Raises, before a long run, what would keep the plot from being written.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: the name does not end in .png.
        OSError: its folder does not exist, or it is a folder.
    """
    if path.suffix.lower() != ".png":
        raise ValueError(f"--plot {path}: expected a name that ends in .png")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--plot {path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise IsADirectoryError(f"--plot {path}: a folder, expected a file name")
    if find_spec("matplotlib") is None:
        raise ImportError("--plot needs matplotlib: pip install 'lazygguf[plot]'")
