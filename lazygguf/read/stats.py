"""What one evaluation or generation did and how long it took.

Owns the ``Stats`` record, its plain-dict form, and how the counts of native steps are added up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .._names import refuse_unknown
from .sources import Source


def no_traffic() -> dict[str, int]:
    """``Stats.traffic_bytes`` before anything moved."""
    return {"prefill_h2d": 0, "prefill_d2h": 0, "decode_h2d": 0, "decode_d2h": 0}


@dataclass
class Stats:
    """Counts, times and sizes of the last ``eval`` or generation of a ``LazyModel``.

    Attributes:
        n_prompt: tokens of the prompt, those reused included.
        n_reused: tokens of the prompt that were in the context already and were not read again.
        prefill_s: seconds spent reading the prompt, the draft's included.
        ttft_s: seconds from the call to the first sampled token, tokenizing and templates included; 0.0 after
            a plain ``eval``, which samples nothing.
        n_decoded: tokens sampled, an end-of-generation token included.
        decode_tps: tokens per second after the first one, the consumer's own time between tokens left out;
            0.0 when fewer than two were sampled.
        token_share: share of the dense work of reading the prompt that was done: the mean over layers of rows
            computed divided by tokens read. 1.0 is dense; a later turn that revives many old tokens can be
            above 1.0.
        kept: tokens live in each segment when the prompt had been read, first segment first.
        revived: pruned tokens that came back while decoding, summed over steps.
        kv_bytes: bytes of the K/V rows in memory after the last step.
        aux_bytes: bytes of the aux cache (rows of pruned tokens) after the last step.
        draft_s: the part of ``prefill_s`` in which the draft model read.
        n_draft: tokens that the draft read, counted in its own vocabulary; tokens in its cache are not counted.
        draft_share: the draft's work in the same measure as ``token_share``, by parameters.
        skim_share: share of the context's tokens that only the draft has read; they wait before layer 0.
        second_look: tokens that were read on top because what was read at first was not enough to answer.
        draft_note: why a draft that was given did not run; "" where it ran, or where there is none.
        traffic_bytes: bytes that went between host memory and devices: ``prefill_h2d`` (to devices) and ``prefill_d2h``
            (back) while the prompt was read, ``decode_h2d`` and ``decode_d2h`` in all decode steps together. Inputs,
            scores, logits, and the rows that a layer hands to a layer on another device, counted and not estimated;
            what goes from one device to another counts in both. Zeros where all is on the CPU. Weights and, on RPC,
            the descriptions of graphs are not in it.
        n_steps: tokens read while decoding, one in each step.
        submissions_per_token: graphs given to the devices per decode step, the mean; 1.0 where each step is one graph.
        waits_per_token: how often the host waited for the devices per decode step, the mean.
        sources: the passages that ``LazyModel.sources`` found for this answer; empty where nobody asked.
    """

    n_prompt: int = 0
    n_reused: int = 0
    prefill_s: float = 0.0
    ttft_s: float = 0.0
    n_decoded: int = 0
    decode_tps: float = 0.0
    token_share: float = 1.0
    kept: list[int] = field(default_factory=list)
    revived: int = 0
    kv_bytes: int = 0
    aux_bytes: int = 0
    draft_s: float = 0.0
    n_draft: int = 0
    draft_share: float = 0.0
    skim_share: float = 0.0
    second_look: int = 0
    draft_note: str = ""
    traffic_bytes: dict[str, int] = field(default_factory=no_traffic)
    n_steps: int = 0
    submissions_per_token: float = 0.0
    waits_per_token: float = 0.0
    sources: list[Source] = field(default_factory=list)

    def add_step(self, step: Any) -> None:
        """Counts a decode step, an ``_ffi.StepStats``."""
        self.n_steps += 1
        self.submissions_per_token += (step.n_submissions - self.submissions_per_token) / self.n_steps
        self.waits_per_token += (step.n_waits - self.waits_per_token) / self.n_steps
        self.revived += step.n_revived
        self.kv_bytes, self.aux_bytes = step.kv_bytes, step.aux_bytes
        self.traffic_bytes["decode_h2d"] += step.h2d_bytes
        self.traffic_bytes["decode_d2h"] += step.d2h_bytes

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Stats:
        """Reads the form ``to_dict`` gives; unknown keys are refused."""
        refuse_unknown(values, [f.name for f in fields(cls)], "stats key")
        return cls(**{**values, "sources": [Source(**source) for source in values.get("sources", ())]})


def stats_of_steps(steps: Sequence[Any], n_reused: int, seconds: float) -> Stats:
    """Stats of a prompt that was read in one native step or more, each over some of its tokens.

    Args:
        steps: ``_ffi.StepStats`` of each.
        n_reused: tokens that were there before.
        seconds: all of it.
    """
    first, last = steps[0], steps[-1]
    rows = sum(n_layers * n_rows for step in steps for n_layers, n_rows in zip(step.n_layers, step.n_computed))
    dense = sum(first.n_layers) * first.n_new
    return Stats(
        n_prompt=last.n_tokens,
        n_reused=n_reused,
        prefill_s=seconds,
        token_share=rows / dense if dense else 1.0,
        kept=list(last.n_live),
        kv_bytes=last.kv_bytes,
        aux_bytes=last.aux_bytes,
        traffic_bytes={
            **no_traffic(),
            "prefill_h2d": sum(step.h2d_bytes for step in steps),
            "prefill_d2h": sum(step.d2h_bytes for step in steps),
        },
    )
