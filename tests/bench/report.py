"""Prints measurements beside what is asked of them; the measure of how far logits are apart."""

from __future__ import annotations

import numpy as np


def nmse(values: np.ndarray, expected: np.ndarray) -> float:
    """The squared error as a share of what is expected."""
    return float(np.sum((values - expected) ** 2, dtype=np.float64) / np.sum(expected**2, dtype=np.float64))


class Report:
    """Collects lines; ``failed`` counts the measurements that fall short."""

    def __init__(self) -> None:
        self.failed = 0

    def note(self, line: str) -> None:
        print(f"       {line}", flush=True)

    def at_least(self, what: str, value: float, least: float) -> None:
        self._verdict(what, value, f">= {least:g}", value >= least)

    def at_most(self, what: str, value: float, most: float) -> None:
        self._verdict(what, value, f"<= {most:g}", value <= most)

    def _verdict(self, what: str, value: float, asked: str, ok: bool) -> None:
        self.failed += not ok
        print(f"{'ok' if ok else 'SHORT':5}  {what}: {value:.4g} (asked {asked})", flush=True)
