"""What a model attends to while it reads a probe, recorded once per probe.

Owns the recording: one dense reading with the attention of those who ask, every head by itself for a schedule, every
token of the question by itself for a draft; and the file that keeps it, so that a calibration can go on where it was
stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
import numpy.typing as npt

from lazygguf.cli.terminal import interrupt_cancels
from lazygguf.read.attention import AttentionReader
from lazygguf.schedule.keep_schedule import DEFAULT_QUERY, MAX_QUERY

from ..atomic_file import scratch_file
from ..eval.prompts import TaskPrompt
from ..progress_bar import step_bar
from .probes import Probe

N_SINK = 4
ASKING = ("newest", "mean", "max")  # the newest token (the paper); mean and maximum over the question and it
BY_QUERY = "rows"  # every token of the question by itself

Attention = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Recording:
    """A probe's dense reading."""

    name: str  # name, kind: the probe's
    kind: str
    protected: tuple[int, ...]  # positions that are read in any case: sinks, those who ask, the template's; ascending
    evidence: tuple[tuple[int, ...], ...]  # for each fact that answers, the positions it needs
    # of record_heads, by name of ASKING, (n_layer, n_head, n_tokens); of record_queries, under
    # BY_QUERY, (n_layer, n_query, n_tokens), the mean over heads
    attention: dict[str, Attention]

    @property
    def n_tokens(self) -> int:
        """Tokens of the prompt."""
        return int(next(iter(self.attention.values())).shape[-1])

    @classmethod
    def of(cls, probe: Probe, attention: dict[str, npt.NDArray[np.float32]]) -> Recording:
        """The recording of a probe."""
        prompt = probe.question.prompt
        protected = sorted({*range(N_SINK), *asking_positions(prompt), *prompt.protect})
        rows = {name: each.astype(np.float16) for name, each in attention.items()}
        return cls(probe.name, probe.kind, tuple(protected), probe.evidence, rows)

    def save(self, path: Path) -> None:
        """Writes a .npz, whole or not at all."""
        about = {"name": self.name, "kind": self.kind, "protected": self.protected, "evidence": self.evidence}
        with scratch_file(path) as scratch:
            with open(scratch, "wb") as file:
                np.savez(file, about=np.array(json.dumps(about)), **self.attention)  # type: ignore[arg-type]
            os.replace(scratch, path)

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Reads what ``save`` wrote."""
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            attention = {name: file[name] for name in file.files if name != "about"}
        evidence = tuple(tuple(fact) for fact in about["evidence"])
        return cls(about["name"], about["kind"], tuple(about["protected"]), evidence, attention)


Record = Callable[[AttentionReader, Probe], Recording]


def record_all(
    reader: AttentionReader,
    folder: Path,
    names: Sequence[tuple[str, int]],
    probe_of: Callable[[str, int], Probe],
    record: Record,
    is_late: Callable[[int], bool] = lambda n: False,
) -> list[Recording]:
    """The recordings of some probes; those that an earlier run left in the folder are not read again.

    Args:
        reader: of the model.
        folder: a file for each recording.
        names: kind and index of each probe.
        probe_of: makes one.
        record: ``record_heads`` or ``record_queries``.
        is_late: whether there is no time to read another one after so many; ends the list.
    """
    recordings = []
    with step_bar("recording", "probes") as progress, interrupt_cancels(reader.cancel):
        for n, (kind, index) in enumerate(names):
            progress(n, len(names))
            path = folder / f"{kind}-{index}.npz"
            if not path.exists():
                if is_late(n):
                    break
                record(reader, probe_of(kind, index)).save(path)
            recordings.append(Recording.load(path))
    return recordings


def record_heads(reader: AttentionReader, probe: Probe) -> Recording:
    """What each head of each layer attends to for those who ask at a pruning point."""
    ids = probe.question.prompt.ids
    reader.reset()
    spans = _spans(asking_positions(probe.question.prompt))
    return Recording.of(probe, _by_asking([reader.read(ids[:end], (begin, end), by_head=True) for begin, end in spans]))


def record_queries(reader: AttentionReader, probe: Probe) -> Recording:
    """What the question's tokens attend to; only its last ``MAX_QUERY`` ask, as when the model is a draft."""
    prompt = probe.question.prompt
    begin, end = prompt.query_span or (0, len(prompt.ids))
    rows = reader.read(prompt.ids, (max(begin, end - MAX_QUERY), end), by_query=True)
    return Recording.of(probe, {BY_QUERY: rows})


def asking_positions(prompt: TaskPrompt) -> tuple[int, ...]:
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


def _by_asking(parts: list[npt.NDArray[np.float32]]) -> dict[str, npt.NDArray[np.float32]]:
    """From the rows of each span, (n_layer, n_query, n_head, tokens so far), the last of which saw all tokens."""
    n_layer, _, n_head, n_tokens = parts[-1].shape
    total, most = (np.zeros((n_layer, n_head, n_tokens), np.float32) for _ in range(2))
    for rows in parts:
        seen = rows.shape[-1]
        total[..., :seen] += rows.sum(axis=1)
        most[..., :seen] = np.maximum(most[..., :seen], rows.max(axis=1))
    n_asking = sum(rows.shape[1] for rows in parts)
    return {"newest": parts[-1][:, -1], "mean": total / n_asking, "max": most}
