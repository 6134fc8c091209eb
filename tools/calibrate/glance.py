"""What a small model looks at when it is asked: the recording from which its scoring as a draft is found.

Owns one reading of a probe, every layer's attention by asking token and the mean over its heads, and the file that
keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lazygguf.read.attention import AttentionReader
from lazygguf.schedule.keep_schedule import MAX_QUERY

from .npz_file import load_npz, save_npz
from .probes import Probe
from .recording import N_SINK, asking_positions


@dataclass(frozen=True)
class Glance:
    """A probe as the small model sees it (a source of evidence, as ``recall.Evident``).

    Attributes:
        name, kind: the probe's.
        protected: positions that are read in any case: sinks, the question, the template's; ascending.
        evidence: for each fact that answers, the positions it needs.
        rows: (n_layer, n_query, n_tokens) what each of the question's tokens looks at, the mean over heads.
    """

    name: str
    kind: str
    protected: tuple[int, ...]
    evidence: tuple[tuple[int, ...], ...]
    rows: npt.NDArray[np.float16]

    @property
    def n_tokens(self) -> int:
        """Tokens of the prompt."""
        return int(self.rows.shape[-1])

    def save(self, path: Path) -> None:
        """Writes a .npz, whole or not at all."""
        about = {"name": self.name, "kind": self.kind, "protected": self.protected, "evidence": self.evidence}
        save_npz(path, about, {"rows": self.rows})

    @classmethod
    def load(cls, path: Path) -> Glance:
        """Reads what ``save`` wrote."""
        about, arrays = load_npz(path, ["rows"])
        evidence = tuple(tuple(fact) for fact in about["evidence"])
        return cls(about["name"], about["kind"], tuple(about["protected"]), evidence, arrays["rows"])


def glance(reader: AttentionReader, probe: Probe) -> Glance:
    """Reads a probe; only the last ``MAX_QUERY`` tokens of its question ask, as when the model is a draft."""
    prompt = probe.question.prompt
    begin, end = prompt.query_span or (0, len(prompt.ids))
    rows = reader.read(prompt.ids, (max(begin, end - MAX_QUERY), end), by_query=True)
    protected = sorted({*range(N_SINK), *asking_positions(prompt), *prompt.protect})
    return Glance(probe.name, probe.kind, tuple(protected), probe.evidence, rows.astype(np.float16))
