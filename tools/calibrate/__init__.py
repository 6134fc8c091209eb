"""``lazygguf calibrate``: the cheapest keep schedule that keeps a model's answers. The command is in ``command.py``."""

from __future__ import annotations

from .command import run
from .options import add_arguments

__all__ = ["add_arguments", "run"]
