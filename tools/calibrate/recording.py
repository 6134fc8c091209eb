"""What a model looks at when it is asked, recorded densely, once per probe.

Owns the recording: one dense reading of a probe with the attention of those who ask, and the file that keeps it, so
that a calibration can go on where it was stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lazygguf.schedule.keep_schedule import DEFAULT_QUERY

from ..eval.engine import Attention, Reader
from ..eval.prompts import Prompt
from .npz_file import load_npz, save_npz
from .probes import Probe

N_SINK = 4
ASKING = ("newest", "mean", "max")  # the newest token (the paper); mean and maximum over the question and it

Looks = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Recording:
    """A probe's dense reading.

    Attributes:
        name: the probe's.
        kind: the probe's.
        protected: positions that are never pruned: sinks, those who ask, the template's; ascending.
        evidence: for each fact that answers, the positions it needs.
        looks: by name of ``ASKING``, (n_layer, n_head, n_tokens): what each head of each layer looks at.
    """

    name: str
    kind: str
    protected: tuple[int, ...]
    evidence: tuple[tuple[int, ...], ...]
    looks: dict[str, Looks]

    @property
    def n_tokens(self) -> int:
        """Tokens of the prompt."""
        return int(self.looks["newest"].shape[-1])

    def save(self, path: Path) -> None:
        """Writes a .npz, whole or not at all."""
        about = {"name": self.name, "kind": self.kind, "protected": self.protected, "evidence": self.evidence}
        save_npz(path, about, self.looks)

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Reads what ``save`` wrote."""
        about, looks = load_npz(path, ASKING)
        evidence = tuple(tuple(fact) for fact in about["evidence"])
        return cls(about["name"], about["kind"], tuple(about["protected"]), evidence, looks)


def record(reader: Reader, probe: Probe) -> Recording:
    """Reads a probe with the dense method."""
    prompt = probe.question.prompt
    asking = asking_positions(prompt)
    rows = reader.record(prompt, _spans(asking))
    n_tokens = len(prompt.ids)
    protected = sorted({*range(N_SINK), *asking, *prompt.protect})
    return Recording(probe.name, probe.kind, tuple(protected), probe.evidence, _looks(rows, n_tokens))


def asking_positions(prompt: Prompt) -> tuple[int, ...]:
    """Who asks at a point whose ``n_query`` is "question": the question's tokens and the newest one."""
    n_tokens = len(prompt.ids)
    begin, end = prompt.query_span or (max(0, n_tokens - DEFAULT_QUERY), n_tokens)
    return tuple(sorted({*range(begin, end), n_tokens - 1}))


def _spans(asking: tuple[int, ...]) -> list[tuple[int, int]]:
    """The positions as spans [begin, end)."""
    spans: list[tuple[int, int]] = []
    for pos in asking:
        if spans and spans[-1][1] == pos:
            spans[-1] = spans[-1][0], pos + 1
        else:
            spans.append((pos, pos + 1))
    return spans


def _looks(parts: list[Attention], n_tokens: int) -> dict[str, Looks]:
    """From the rows of each span, (n_layer, n_query, n_head, tokens so far), to ``Recording.looks``."""
    n_layer, _, n_head, _ = parts[-1].shape
    total, most = (np.zeros((n_layer, n_head, n_tokens), np.float32) for _ in range(2))
    for rows in parts:
        seen = rows.shape[-1]
        total[..., :seen] += rows.sum(axis=1)
        most[..., :seen] = np.maximum(most[..., :seen], rows.max(axis=1))
    n_asking = sum(rows.shape[1] for rows in parts)
    forms = {"newest": parts[-1][:, -1], "mean": total / n_asking, "max": most}
    return {name: rows.astype(np.float16) for name, rows in forms.items()}
