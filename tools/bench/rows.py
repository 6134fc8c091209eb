"""What the runs of one contender at one prompt length come to.

Owns the derived figures: medians, ratios to the dense and to llama.cpp's row of the same rounds, and how much of
the ideal speed-up was reached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Callable, Optional

from .contenders import LLAMA_CPP, Contender
from .timing import Sample, Spread, pair_ratio, spread

Seconds = Callable[[Sample], float]

SECONDS: Mapping[str, Seconds] = {
    "prefill": lambda sample: sample.prefill_s,
    "ttft": lambda sample: sample.ttft_s,
    "decode": lambda sample: sample.decode_s,
    "total": lambda sample: sample.total_s,
    "draft": lambda sample: sample.draft_s,
}
VARIES = "varies"


@dataclass(frozen=True)
class Row:
    """One contender at one prompt length.

    Attributes:
        contender: who.
        n_prompt, n_gen: tokens of the prompt, tokens after it.
        samples: its runs.
        dense, llama_cpp: the runs of those rows in the same rounds; None where there is no such row.
        peak_bytes: peak RSS of a process that does such a run alone; None where it was not measured.
        test_time: when its runs began, ISO 8601, UTC.
    """

    contender: Contender
    n_prompt: int
    n_gen: int
    samples: Sequence[Sample]
    dense: Optional[Sequence[Sample]] = None
    llama_cpp: Optional[Sequence[Sample]] = None
    peak_bytes: Optional[int] = None
    test_time: str = ""

    def seconds(self, part: str) -> list[float]:
        """The times of a part, "prefill", "ttft", "decode", "total", or "draft", which is in the first two."""
        return [SECONDS[part](sample) for sample in self.samples]

    def spread(self, part: str) -> Spread:
        """Median, least and most seconds of a part."""
        return spread(self.seconds(part))

    def tokens(self, part: str) -> int:
        """Tokens that a part reads."""
        return {"decode": self.n_gen, "total": self.n_prompt + self.n_gen}.get(part, self.n_prompt)

    def rate(self, part: str) -> Spread:
        """Median, least and most tokens per second of a part."""
        return spread([self.tokens(part) / seconds for seconds in self.seconds(part)])

    def ratio_dense(self, part: str) -> Optional[float]:
        """How many times faster than the dense row."""
        return self._ratio(part, self.dense)

    def ratio_llama_cpp(self, part: str) -> Optional[float]:
        """How many times faster than llama.cpp."""
        return self._ratio(part, self.llama_cpp)

    @property
    def token_share(self) -> float:
        """Share of the dense work that reading the prompt took, a draft's work included."""
        return self.samples[-1].token_share

    @property
    def draft_share(self) -> float:
        """The draft's part of it."""
        return self.samples[-1].draft_share

    @property
    def ideal_speedup(self) -> float:
        """Of the prefill, if time were all work: 1 / token share."""
        return 1.0 / self.token_share

    @property
    def reached(self) -> Optional[float]:
        """Share of the ideal that the prefill reached: dense time / own time / ideal."""
        ratio = self.ratio_dense("prefill")
        return None if ratio is None or self.contender.engine == LLAMA_CPP else ratio / self.ideal_speedup

    @property
    def logits_hash(self) -> str:
        """Of the logits after the prompt; VARIES where the runs did not agree."""
        hashes = {sample.logits_hash for sample in self.samples}
        return hashes.pop() if len(hashes) == 1 else VARIES

    def _ratio(self, part: str, others: Optional[Sequence[Sample]]) -> Optional[float]:
        if others is None:
            return None
        return pair_ratio(self.seconds(part), [SECONDS[part](sample) for sample in others])


def make_rows(
    samples: Mapping[Contender, Sequence[Sample]],
    n_prompt: int,
    n_gen: int,
    peaks: Mapping[Contender, int],
    test_time: str,
) -> list[Row]:
    """The rows of one prompt length, in the order of the contenders."""
    dense = next((runs for contender, runs in samples.items() if contender.is_dense), None)
    theirs = next((runs for contender, runs in samples.items() if contender.engine == LLAMA_CPP), None)
    return [
        Row(contender, n_prompt, n_gen, runs, dense, theirs, peaks.get(contender), test_time)
        for contender, runs in samples.items()
    ]
