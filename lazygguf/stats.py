"""What one evaluation or generation did and how long it took.

Owns the ``Stats`` record and its plain-dict form. It knows nothing of how the numbers are gathered
(``context.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ._names import refuse_unknown


@dataclass
class Stats:
    """Counts, times and sizes of the last ``eval`` or generation of a ``LazyModel``.

    Attributes:
        n_prompt: tokens of the prompt, those reused included.
        n_reused: tokens of the prompt that were in the context already and were not read again.
        prefill_s: seconds spent reading the prompt.
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

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Stats:
        """Reads the form ``to_dict`` gives; unknown keys are refused."""
        refuse_unknown(values, [f.name for f in fields(cls)], "stats key")
        return cls(**values)
