"""When what was read is not enough to answer, and what to read then.

Owns the two signs of it and the choice of what is read on top, a bounded number of tokens. Numbers in, positions out;
it knows nothing of sessions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_STRIDE = 8  # tokens read beyond an edge that is looked at


@dataclass(frozen=True)
class LookAgain:
    """When to look again, and how much.

    Attributes:
        share: of the tokens in the context that may be read on top; 0 never looks again.
        max_entropy: nats of the first token's distribution; above, the model does not know what to say. It is high:
            up to 3.2 were seen before right answers, and what is read then may mislead a small model.
        max_edge: how much more than other tokens the edges of unread gaps may be looked at.
    """

    share: float = 0.05
    max_entropy: float = 4.0
    max_edge: float = 1.5

    def n_most(self, n_tokens: int) -> int:
        """Tokens that may be read on top."""
        return int(self.share * n_tokens + 1e-6)


@dataclass(frozen=True)
class View:
    """What the model made of what it read.

    Attributes:
        logits: (n_vocab,) of the first token.
        is_read: (n_tokens,) tokens that were read.
        wanted: (n_tokens,) the draft's scores; NaN and inf are not compared.
        looked_at: (n_tokens,) attention at the first pruning point that scored, NaN where there is none; None where
            nothing was scored.
        content: (n_tokens,) tokens that are neither the question nor fixed.
    """

    logits: Floats
    is_read: Mask
    wanted: Floats
    looked_at: Optional[Floats]
    content: Mask


def extra_tokens(view: View, rule: LookAgain) -> npt.NDArray[np.int64]:
    """Positions to read on top, ascending; none where what was read will do."""
    n_most = rule.n_most(len(view.is_read))
    chosen: list[int] = []
    if n_most > 0 and edge_pull(view) > rule.max_edge:
        chosen = beyond_edges(view, rule.max_edge, n_most)
    if n_most > len(chosen) and entropy(view.logits) > rule.max_entropy:
        chosen += best_unread(view, set(chosen), n_most - len(chosen))
    return np.array(sorted(chosen), np.int64)


def entropy(logits: Floats) -> float:
    """Of the distribution that logits stand for, in nats."""
    shifted = logits.astype(np.float64) - float(logits.max())
    weights = np.exp(shifted)
    total = weights.sum()
    return float(np.log(total) - (weights * shifted).sum() / total)


def edge_pull(view: View) -> float:
    """How much the edges of unread gaps are looked at, beside what a token of the content is on average; 0: no gap."""
    pulls = _edge_pulls(view)
    return float(np.nanmean(pulls)) if np.isfinite(pulls).any() else 0.0


def beyond_edges(view: View, least: float, n_most: int) -> list[int]:
    """Unread tokens next to the edges whose pull is above ``least``, those first that are looked at most."""
    pulls = _edge_pulls(view)
    edges = np.flatnonzero(pulls > least)
    chosen: dict[int, None] = {}
    for edge in edges[np.argsort(-pulls[edges], kind="stable")]:
        for step in (-1, 1):
            for pos in range(edge + step, edge + step * (_STRIDE + 1), step):
                if not 0 <= pos < len(view.is_read) or view.is_read[pos]:
                    break
                if len(chosen) == n_most:
                    return list(chosen)
                chosen[int(pos)] = None
    return list(chosen)


def best_unread(view: View, taken: set[int], n_most: int) -> list[int]:
    """Unread tokens that the draft wanted most."""
    unread = np.flatnonzero(~view.is_read & np.isfinite(view.wanted))
    ranked = unread[np.argsort(-view.wanted[unread], kind="stable")]
    return [int(pos) for pos in ranked if int(pos) not in taken][:n_most]


def _edge_pulls(view: View) -> Floats:
    """(n_tokens,) how much each edge is looked at, 1 is the mean of the content that was read; NaN for other tokens."""
    pulls = np.full(len(view.is_read), np.nan, np.float32)
    if view.looked_at is None:
        return pulls
    inside = view.content & view.is_read & np.isfinite(view.looked_at)
    unread = np.pad(~view.is_read, 1)
    edges = inside & (unread[:-2] | unread[2:])
    mean = float(view.looked_at[inside].mean()) if inside.any() else 0.0
    if mean > 0:
        pulls[edges] = view.looked_at[edges] / mean
    return pulls
