"""LazyLLM in NumPy, slow and obvious: the definition that the native core is tested against.

Owns the rule, in float32 with float64 sums. It knows nothing of files, ubatches or rows of a cache: K/V and
hidden rows are kept in dictionaries by position. Config and schedule are any objects with the attributes that
are used here.

The method is LazyLLM, arXiv 2407.14057, with original positions, a revive budget, query windows and pooling. While
decoding, the points choose one step before: what they want is in the next token's step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tiny_gguf import NORM_ROPE_ARCHS

DEFAULT_QUERY = 24  # newest tokens that ask where a "question" point gets no span
MAX_QUERY = 128  # tokens of a span that ask, the last ones


@dataclass(frozen=True)
class Point:
    """A pruning point: after layer ``il`` (-1: before layer 0) at most ``keep`` times the context goes on."""

    il: int
    keep: float
    heads: tuple[Any, ...] | None = None  # None: mean over all; else the maximum of these, heads of il or (il, head)
    n_query: int | str = 1  # the newest rows that ask, or "question"
    pool: int = 1
    query_max: bool = False  # over those who ask, else their mean
    n_layers: int = 1  # without heads: the maximum over this many layers, il the last
    mass: float = 1.0  # the fewest with this share of the scores go on, at most keep and at least keep_min
    keep_min: float = 0.0


@dataclass(frozen=True)
class Schedule:
    """Pruning points in ascending order, and the rules of the whole schedule."""

    points: tuple[Point, ...] = ()
    n_sink: int = 0
    min_prompt: int = 0
    max_revive: int = -1  # -1: unlimited
    revive_margin: float = 0.0
    mean_revive: float = 0.0  # 0: as many in every decode step as max_revive allows
    decode_cached: bool = False  # a decode step attends to all that a segment holds
    dense_unasked: bool = False  # without a span, where one would ask, a prompt runs dense


class Reference:
    """One conversation with one model.

    Attributes of the last eval, by segment s:
        live: live[s], the positions live in the segment, ascending.
        computed: computed[s], the positions whose rows were computed, ascending.
        late: whether it went by what the eval before had chosen, as a plain decode step does.
        scores: scores[s], of the point that ends the segment, float32 (n_tokens,), NaN where a position was
            not live; empty where the point was not scored because the step ran dense. In a late step they choose for
            the next one.
        margins: margins[s], how far the worst kept score is above the best pruned one, as a share of the
            former; inf where there was nothing to choose. A kept set is only as sure as its margin.
        attention: attention[il], of the rows computed, (n_head, n_compute, n_live).
        n_revived: old positions computed, each counted once.
    """

    def __init__(
        self, weights: Mapping[str, np.ndarray], config: Any, schedule: Any = None, *, kv_f16: bool = False
    ) -> None:
        self.weights = weights
        self.config = config
        self.schedule = Schedule() if schedule is None else schedule
        self.kv_f16 = kv_f16
        self.entry = next((point for point in self.schedule.points if point.il < 0), None)
        self.points = [point for point in self.schedule.points if point.il >= 0]  # each ends a segment
        self.segments = _segments(config.n_layer, [point.il for point in self.points])
        self.reset()

    @property
    def cached(self) -> list[list[int]]:
        """cached[s]: the positions that have K/V in the segment, ascending."""
        return [sorted(self.k[layers[0]]) for layers in self.segments]

    def reset(self) -> None:
        """Forgets every token."""
        self.n_tokens = 0
        self.ids: list[int] = []  # of every token: an unread one's aux row is its embedding
        self.entered: list[int] = []  # positions that lived before layer 0 in the last step
        self.protected: set[int] = set()  # by the caller's word
        # k[il][pos], v[il][pos]: (n_head_kv, n_embd_head)
        self.k: list[dict[int, np.ndarray]] = [{} for _ in range(self.config.n_layer)]
        self.v: list[dict[int, np.ndarray]] = [{} for _ in range(self.config.n_layer)]
        # aux[s][pos]: (n_embd,), the hidden row at the start of segment s; aux[0] stays empty
        self.aux: list[dict[int, np.ndarray]] = [{} for _ in self.segments]
        # looks[s][pos]: (n_scored, pos + 1), what a position looked at by all that scores at the end of segment s when
        # it was computed, 0 where a position was not live; of those that asked last
        self.looks: list[dict[int, np.ndarray]] = [{} for _ in self.segments]
        self.question: range = range(0)
        self.saved = 0.0  # what the next decode step may bring back, where mean_revive limits it
        self.next: _Next | None = None
        self._forget_step()

    def trim(self, n: int) -> None:
        """Forgets positions >= n."""
        for rows in [*self.k, *self.v, *self.aux, *self.looks]:
            for pos in [pos for pos in rows if pos >= n]:
                del rows[pos]
        if n < self.n_tokens:
            self.saved = float(max(0, self.schedule.max_revive))
            self.next = None
        self.n_tokens = min(self.n_tokens, n)
        self.ids, self.entered = self.ids[:n], [pos for pos in self.entered if pos < n]
        self.protected = {pos for pos in self.protected if pos < n}
        self._forget_step()

    def eval(
        self,
        ids: Sequence[int],
        query_span: tuple[int, int] | None = None,
        scores: np.ndarray | None = None,
        protect: Sequence[int] = (),
    ) -> np.ndarray:
        """Reads tokens after those held.

        Args:
            ids: The new tokens, at least one.
            query_span: [begin, end) of the positions that ask at "question" points.
            scores: For a point before layer 0, float32 (n_tokens,), old tokens and new; inf where a token
                is read in any case, NaN where it stays as it is.
            protect: Positions that are never pruned, in this and later steps.

        Returns:
            The logits of the newest token, float32 (n_vocab,).
        """
        n_past, n_tokens = self.n_tokens, self.n_tokens + len(ids)
        if n_past == n_tokens:
            raise ValueError("eval needs at least one token")
        self._forget_step()
        self.n_tokens = n_tokens
        self.protected |= set(protect)
        step = _Step(self, n_past, n_tokens, query_span)
        plain = step.decode and query_span is None and scores is None and not len(protect)
        planned = self.next if plain and self.points else None
        self.late = planned is not None
        self.question = step.question
        self.ids += ids
        live = self.entered = self._enter(step, scores)
        compute = [pos for pos in live if pos not in self.k[0]]
        step.revived.update(pos for pos in compute if pos < n_past)
        if planned is not None:
            step.revived.update(planned.revived)
        rows = self.embeddings(np.asarray(self.ids)[compute])
        for s, layers in enumerate(self.segments):
            self.live.append(live)
            self.computed.append(compute)
            if s > 0:
                rows = np.stack([self.aux[s][pos] for pos in compute])
            for il in layers:
                rows, attention = self._layer(il, rows, compute, live)
                self.attention.append(attention)
            if s + 1 < len(self.segments):
                self.aux[s + 1].update(zip(compute, rows))
                scored = scored_rows(self.points[s], self.attention)
                known = {**self.looks[s], **_by_position(scored, compute, live)}
                if not step.dense and not step.prunes(s, live):
                    known = self.looks[s]  # where all stay nobody asks
                self.looks[s] = {pos: known[pos] for pos in step.asking[s] if pos in known}
                if planned is None:
                    live, compute = self._prune(s, step)
                else:
                    held = self.k[self.segments[s + 1][0]] if self.schedule.decode_cached else ()
                    live = sorted({*planned.live[s], *held, n_past})
                    compute = sorted({*planned.compute[s], n_past})
        self.n_revived = len(step.revived)
        self.saved = step.saved_after()
        self.next = self._choose_next(step)
        return self._logits(rows[-1])

    def _forget_step(self) -> None:
        self.live: list[list[int]] = []
        self.computed: list[list[int]] = []
        self.scores: list[np.ndarray] = []
        self.margins: list[float] = []
        self.attention: list[np.ndarray] = []
        self.n_revived = 0
        self.late = False

    # ---- pruning ----

    def _enter(self, step: _Step, scores: np.ndarray | None) -> list[int]:
        """What lives before layer 0."""
        fresh = list(range(step.n_past, step.n_tokens))
        if step.dense or self.entry is None:
            return list(range(step.n_tokens))
        if scores is None:
            return self.entered + fresh
        stay = {pos for pos in range(step.n_tokens) if np.isnan(scores[pos])}
        live = [pos for pos in range(step.n_tokens) if pos not in stay or pos in self.entered or pos >= step.n_past]
        raw = np.where(np.isfinite(scores), scores, 0.0)[live]
        safe = {pos for pos in live if not np.isfinite(scores[pos])}
        by_pos, protected = pooled(self.entry.pool, live, raw), step.protected | safe
        return select(by_pos, protected, mass_share(by_pos, protected, self.entry, step.n_tokens), step.n_tokens)

    def _choose_next(self, step: _Step) -> _Next:
        """What the next step goes by, should it be a plain decode step."""
        if not self.late:
            return _Next(self.live[1:], [[] for _ in self.points], set())
        following, chosen = step.following(self.saved), _Next([], [], set())
        for s in range(len(self.points)):
            back = set(following.revived)  # no score here yet: it goes on, as a new token does
            live, compute = self._prune(s, following)
            chosen.live.append(sorted({*live, *back}))
            chosen.compute.append(sorted({*compute, *back}))
        chosen.revived.update(following.revived)
        return chosen

    def _prune(self, s: int, step: _Step) -> tuple[list[int], list[int]]:
        """What is live in segment s + 1, and which of it has to be computed there."""
        live, held = self.live[s], self.k[self.segments[s + 1][0]]
        if not step.prunes(s, live):
            self.scores.append(np.empty(0, np.float32))
            self.margins.append(np.inf)
            kept, scores = live, dict.fromkeys(live, 0.0)
        else:
            point = self.points[s]
            scores = dict(zip(live, score(point, live, list(self.looks[s].values()))))
            by_pos = [scores.get(pos, np.nan) for pos in range(step.n_tokens)]
            self.scores.append(np.array(by_pos, np.float32))
            share = mass_share(scores, step.protected, point, step.n_tokens)
            kept = select(scores, step.protected, share, step.n_tokens)
            self.margins.append(_margin(scores, kept, step.protected))
        missing = [pos for pos in kept if pos not in held]
        chosen = [scores[pos] for pos in kept if pos not in step.protected] if step.prunes(s, live) else []
        least = np.float32(1.0 + self.schedule.revive_margin) * np.float32(min(chosen, default=0.0))
        old = [pos for pos in missing if pos < step.n_past]
        if step.limited and least > 0.0:  # a score that is nearly the least one may fall either way
            self.margins[s] = min([self.margins[s], *(abs(scores[pos] - least) / least for pos in old)])
        given_up = step.revive(s, old, scores, least)
        live = [pos for pos in kept if pos not in given_up]
        if self.schedule.decode_cached and step.decode:
            live = sorted({*live, *held})
        return live, [pos for pos in missing if pos not in given_up]

    # ---- the model ----

    def _layer(self, il: int, rows: np.ndarray, compute: list[int], live: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """One layer over rows (n_compute, n_embd). Also gives attention (n_head, n_compute, n_live)."""
        config = self.config
        cur = self._norm_if_any(rows, f"blk.{il}.attn_norm")
        pos = np.asarray(compute)
        q = self._rotated(il, self._heads(cur, f"blk.{il}.attn_q", config.n_head), pos)
        k = self._rotated(il, self._heads(cur, f"blk.{il}.attn_k", config.n_head_kv), pos)
        v = self._heads(cur, f"blk.{il}.attn_v", config.n_head_kv)
        if self.kv_f16:
            k, v = k.astype(np.float16).astype(np.float32), v.astype(np.float16).astype(np.float32)
        self.k[il].update(zip(compute, k))
        self.v[il].update(zip(compute, v))
        out, attention = self._attend(il, q, pos, live)
        scale = np.float32(config.residual_scale or 1.0)
        attended = self._linear(out, f"blk.{il}.attn_output")
        rows = rows + scale * self._norm_if_any(attended, f"blk.{il}.post_attention_norm")
        cur = self._norm_if_any(rows, f"blk.{il}.ffn_norm")
        gate = self._linear(cur, f"blk.{il}.ffn_gate")
        activated = gelu(gate) if config.arch == "gemma3" else silu(gate)
        ffn = self._linear(activated * self._linear(cur, f"blk.{il}.ffn_up"), f"blk.{il}.ffn_down")
        return rows + scale * self._norm_if_any(ffn, f"blk.{il}.post_ffw_norm"), attention

    def embeddings(self, ids: np.ndarray) -> np.ndarray:
        """Rows (n, n_embd) that go into the first layer."""
        scale = np.sqrt(self.config.n_embd) if self.config.arch == "gemma3" else self.config.embd_scale or 1.0
        rows: np.ndarray = self.weights["token_embd.weight"][ids].astype(np.float32) * np.float32(scale)
        return rows

    def _rotated(self, il: int, heads: np.ndarray, pos: np.ndarray) -> np.ndarray:
        config = self.config
        if not config.rotates(il):
            return heads
        if config.has_window(il):
            base = (config.window_freq_base or 10000.0) if config.arch == "gemma3" else config.rope_freq_base
            config = replace(config, rope_scaling="none", rope_freq_base=base)
        return rope(heads, pos, config, self._rope_factors())

    def _attend(self, il: int, q: np.ndarray, pos: np.ndarray, live: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """What q (n_query, n_head, n_embd_head) at pos sees of live rows not after it, and how much of each."""
        k = np.stack([self.k[il][p] for p in live])  # (n_live, n_head_kv, n_embd_head)
        v = np.stack([self.v[il][p] for p in live])
        n_head, n_embd_head = q.shape[1:]
        group = n_head // k.shape[1]
        visible = np.asarray(live)[None, :] <= pos[:, None]
        if self.config.has_window(il):
            visible &= np.asarray(live)[None, :] > pos[:, None] - self.config.window
        is_27b = self.config.arch == "gemma3" and self.config.n_layer == 62
        usual = self.config.n_embd // n_head if is_27b else n_embd_head
        scale = np.float32(self.config.attn_scale or 1.0 / np.sqrt(usual))
        attention = np.empty((n_head, len(pos), len(live)), np.float32)
        out = np.empty(q.shape, np.float32)
        for h in range(n_head):
            logits = q[:, h] @ k[:, h // group].T * scale
            attention[h] = softmax(np.where(visible, logits, -np.inf))
            out[:, h] = attention[h] @ v[:, h // group]
        return out.reshape(len(pos), -1), attention

    def _heads(self, cur: np.ndarray, name: str, n_head: int) -> np.ndarray:
        """Rows as heads, normed where the architecture does so: each (qwen3, gemma3), or all together (olmo2)."""
        out = self._linear(cur, name)
        if self.config.arch == "olmo2":
            return self._norm_if_any(out, name + "_norm").reshape(len(cur), n_head, -1)
        return self._norm_if_any(out.reshape(len(cur), n_head, -1), name + "_norm")

    def _linear(self, cur: np.ndarray, name: str) -> np.ndarray:
        out: np.ndarray = cur @ self.weights[name + ".weight"].T
        bias = self.weights.get(name + ".bias")
        return out if bias is None else out + bias

    def _norm_if_any(self, rows: np.ndarray, name: str) -> np.ndarray:
        return self._norm(rows, name) if name + ".weight" in self.weights else rows

    def _norm(self, rows: np.ndarray, name: str) -> np.ndarray:
        mean_square = np.mean(np.square(rows, dtype=np.float64), axis=-1, keepdims=True)
        scale = (1.0 / np.sqrt(mean_square + self.config.rms_eps)).astype(np.float32)
        normed: np.ndarray = rows * scale * self.weights[name + ".weight"]
        return normed

    def _rope_factors(self) -> np.ndarray | None:
        return self.weights.get("rope_freqs.weight")

    def _logits(self, row: np.ndarray) -> np.ndarray:
        output = self.weights.get("output.weight", self.weights["token_embd.weight"])
        logits: np.ndarray = output @ self._norm(row[None], "output_norm")[0] / np.float32(self.config.logit_scale)
        cap = np.float32(self.config.logit_softcap)
        return cap * np.tanh(logits / cap) if cap > 0.0 else logits


@dataclass(frozen=True)
class _Next:
    """What the points of an eval chose for the next one; live and compute are by point, without the token to come."""

    live: list[list[int]]
    compute: list[list[int]]
    revived: set[int]  # old positions that come back, each once


class _Step:
    """What one eval is: its length, who asks, who may not be pruned, what comes back."""

    def __init__(self, held: Reference, n_past: int, n_tokens: int, span: tuple[int, int] | None) -> None:
        self.schedule, self.points = held.schedule, held.points
        self.n_past, self.n_tokens = n_past, n_tokens
        self.decode = n_past > 0 and n_tokens - n_past == 1
        asks = any(point.n_query == "question" for point in self.points)
        has_span = span is not None and span[1] > max(span[0], n_past)
        unasked = self.schedule.dense_unasked and asks and not self.decode and not has_span
        self.dense = not self.schedule.points or n_tokens < self.schedule.min_prompt or unasked
        self.limited = self.decode and not self.dense  # in what comes back
        self.question = self._question(held.question, span)
        self.asking = [self._asking(point, held.looks[s]) for s, point in enumerate(self.points)]
        self.protected: set[int] = {
            n_tokens - 1,
            *range(min(self.schedule.n_sink, n_tokens)),
            *held.protected,
            *(pos for asking in self.asking for pos in asking),
            *(self.question if held.entry is not None else ()),
        }
        self.revived: set[int] = set()
        self.saved = held.saved  # what this step may bring back, where mean_revive limits it

    def _question(self, last: range, span: tuple[int, int] | None) -> range:
        """The new span; else, while an answer is decoded, the question it answers; else the newest tokens."""
        if span is not None and span[1] > max(span[0], self.n_past):
            end = min(span[1], self.n_tokens)
            return range(max(span[0], end - MAX_QUERY), end)
        if self.decode and last and last[-1] < self.n_past:
            return last
        return range(max(self.n_past, self.n_tokens - DEFAULT_QUERY), self.n_tokens)

    def _asking(self, point: Any, held: Mapping[int, np.ndarray]) -> list[int]:
        """The newest n_query positions, or the question and the newest one; those whose look is known."""
        if point.keep >= 1.0 and point.mass >= 1.0:
            return []
        newest = self.n_tokens - 1
        question = [*self.question, *([] if newest in self.question else [newest])]
        is_window = point.n_query != "question"
        wanted = range(max(0, self.n_tokens - int(point.n_query)), self.n_tokens) if is_window else question
        return [pos for pos in wanted if pos >= self.n_past or pos in held]

    def prunes(self, s: int, live: list[int]) -> bool:
        """Whether more is live than may go on after segment s."""
        point = self.points[s]
        keep = point.keep_min if point.mass < 1.0 else point.keep
        return not self.dense and keep < 1.0 and len(live) > int(np.floor(keep * self.n_tokens + 1e-6))

    def following(self, saved: float) -> _Step:
        """The same for the step after a late one: by this one's rules, with what that one may bring back."""
        step = copy(self)
        step.revived, step.saved = set(), saved
        return step

    def revive(self, s: int, old: list[int], scores: Mapping[int, float], least: float) -> set[int]:
        """Which of the old positions are not computed after segment s in this step.

        A decode step revives at most max_revive, of which each point has an even part of what those before it left
        over, and none below the least score; what came back at an earlier point of the step goes on beside them.
        """
        fresh = sorted((pos for pos in old if pos not in self.revived), key=lambda pos: (-scores[pos], pos))
        back = fresh
        if self.limited:
            back = [pos for pos in fresh if scores[pos] >= least]
            n_most = self.schedule.max_revive if self.schedule.mean_revive == 0 else int(self.saved)
            n_left = max(0, n_most - len(self.revived))
            back = back if self.schedule.max_revive < 0 else back[: n_left // (len(self.points) - s)]
        self.revived.update(back)
        return set(fresh) - set(back)

    def saved_after(self) -> float:
        """What the next decode step may bring back: all after a prompt, else what was left over and one step's mean."""
        n_most = max(0, self.schedule.max_revive)
        if not self.decode:
            return n_most
        return min(n_most, max(0.0, self.saved - len(self.revived)) + self.schedule.mean_revive)


def score(point: Any, live: list[int], looks: Sequence[np.ndarray]) -> np.ndarray:
    """Scores of the live positions from what those who ask looked at, (n_scored, up to n_tokens) each."""
    by_head = np.zeros((len(looks[0]), max(live) + 1))
    for look in looks:
        seen = by_head[:, : look.shape[1]]
        seen[:] = np.maximum(seen, look) if point.query_max else seen + look / len(looks)
    return np.array(list(pooled(point.pool, live, by_head.max(axis=0)[live]).values()), np.float32)


def scored_rows(point: Any, attention: Sequence[np.ndarray]) -> np.ndarray:
    """What scores at a point, (n_scored, n_compute, n_live), from the attention of each layer."""
    if point.heads is None:
        return np.stack([attention[il].mean(axis=0) for il in range(point.il - point.n_layers + 1, point.il + 1)])
    pairs = [head if isinstance(head, tuple) else (point.il, head) for head in point.heads]
    return np.stack([attention[il][head] for il, head in pairs])


def mass_share(scores: Mapping[int, float], protected: set[int], point: Any, n_tokens: int) -> float:
    """The share to keep: as much as holds the point's mass, between its bounds."""
    if point.mass >= 1.0:
        return float(point.keep)
    others = np.sort(np.array([scores[pos] for pos in scores if pos not in protected], np.float64))[::-1]
    held = np.concatenate([[0.0], np.cumsum(others)])
    n_best = int(np.searchsorted(held, point.mass * others.sum()))  # the fewest that hold as much
    share = (len(scores) - len(others) + n_best) / n_tokens
    return float(min(max(share, point.keep_min), point.keep))


def pooled(pool: int, live: list[int], scores: np.ndarray) -> dict[int, float]:
    """Scores (n_live,) averaged over the live neighbours by position, float32 values by position."""
    pos = np.asarray(live)
    near = np.abs(pos[:, None] - pos[None, :]) <= pool // 2
    return dict(zip(live, (near @ scores / near.sum(axis=1)).astype(np.float32)))


def _by_position(attention: np.ndarray, compute: list[int], live: list[int]) -> dict[int, np.ndarray]:
    """Attention (n_head, n_compute, n_live) as rows (n_head, pos + 1) of every computed position."""
    rows = {}
    for i, pos in enumerate(compute):
        rows[pos] = np.zeros((len(attention), pos + 1), np.float32)
        seen = [j for j, other in enumerate(live) if other <= pos]
        rows[pos][:, [live[j] for j in seen]] = attention[:, i, seen]
    return rows


def select(scores: Mapping[int, float], protected: set[int], keep: float, n_tokens: int) -> list[int]:
    """The positions that go on, ascending: the protected ones, then the best; on a tie the earlier one."""
    safe = [pos for pos in scores if pos in protected]
    k = max(int(np.floor(keep * n_tokens + 1e-6)), len(safe))
    if keep >= 1.0 or len(scores) <= k:
        return sorted(scores)
    others = sorted((pos for pos in scores if pos not in protected), key=lambda pos: (-scores[pos], pos))
    return sorted(safe + others[: k - len(safe)])


def rope(heads: np.ndarray, pos: np.ndarray, config: Any, factors: np.ndarray | None) -> np.ndarray:
    """Rotates (n_rows, n_head, n_rot) to positions pos; pairs (2i, 2i+1), or (i, i + n_rot/2)."""
    n_rot = heads.shape[-1]
    angles, magnitude = _rope_angles(pos, n_rot, config, factors)
    cos = (np.cos(angles) * magnitude).astype(np.float32)[:, None, :]
    sin = (np.sin(angles) * magnitude).astype(np.float32)[:, None, :]
    half = n_rot // 2
    neox = config.arch not in NORM_ROPE_ARCHS
    first = slice(0, half) if neox else slice(0, None, 2)
    second = slice(half, None) if neox else slice(1, None, 2)
    out = np.empty_like(heads)
    out[..., first] = heads[..., first] * cos - heads[..., second] * sin
    out[..., second] = heads[..., first] * sin + heads[..., second] * cos
    return out


def _rope_angles(pos: np.ndarray, n_rot: int, config: Any, factors: np.ndarray | None) -> tuple[np.ndarray, float]:
    """Angles (n_rows, n_rot/2), and what cos and sin are multiplied with."""
    i = np.arange(n_rot // 2)
    angles = pos[:, None] * config.rope_freq_base ** (-2.0 * i / n_rot)
    if factors is not None:
        angles = angles / factors
    if config.rope_scaling == "linear":
        return angles / config.rope_scaling_factor, 1.0
    if config.rope_scaling == "yarn":
        stay = _yarn_stay(i, n_rot, config)
        magnitude = 1.0 + 0.1 * np.log(config.rope_scaling_factor)
        return angles / config.rope_scaling_factor * (1.0 - stay) + angles * stay, magnitude
    return angles, 1.0


def _yarn_stay(i: np.ndarray, n_rot: int, config: Any, beta_fast: float = 32.0, beta_slow: float = 1.0) -> np.ndarray:
    """YaRN (arXiv 2309.00071): 1 where a frequency stays, 0 where it is interpolated, a ramp between.

    A pair that turns beta_fast times or more within the original context stays; one that turns beta_slow
    times or less is interpolated.
    """

    def pair_that_turns(times: float) -> float:
        period = config.n_ctx_orig / (times * 2.0 * np.pi)
        return float(n_rot * np.log(period) / (2.0 * np.log(config.rope_freq_base)))

    low = max(0.0, np.floor(pair_that_turns(beta_fast)))
    high = min(n_rot - 1.0, np.ceil(pair_that_turns(beta_slow)))
    ramp: np.ndarray = np.clip((i - low) / max(0.001, high - low), 0.0, 1.0)
    return 1.0 - ramp


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis; sums in float64."""
    weights: np.ndarray = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: np.ndarray = weights / weights.sum(axis=-1, keepdims=True, dtype=np.float64)
    return shares.astype(np.float32)


def silu(x: np.ndarray) -> np.ndarray:
    """The SiLU activation."""
    out: np.ndarray = x / (1.0 + np.exp(-x))
    return out


def gelu(x: np.ndarray) -> np.ndarray:
    """The GELU activation in its tanh form, as ggml's CPU backend has it: a table from F16 to F16 within (-10, 10)."""
    near = x.astype(np.float16).astype(np.float32)
    table = 0.5 * near * (1.0 + np.tanh(np.float32(np.sqrt(2.0 / np.pi)) * near * (1.0 + 0.044715 * near * near)))
    out: np.ndarray = np.where(np.abs(x) < 10.0, table.astype(np.float16).astype(np.float32), np.maximum(x, 0.0))
    return out


def nmse(logits: np.ndarray, expected: np.ndarray) -> float:
    """Normalized mean squared error: the squared error over the expected values' squares."""
    error = np.asarray(logits, np.float64) - expected
    return float(np.sum(error**2) / np.sum(np.asarray(expected, np.float64) ** 2))


def _margin(scores: Mapping[int, float], kept: Sequence[int], protected: set[int]) -> float:
    chosen = [scores[pos] for pos in kept if pos not in protected]
    pruned = [scores[pos] for pos in scores if pos not in set(kept)]
    if not chosen or not pruned:
        return float(np.inf)
    return float((min(chosen) - max(pruned)) / min(chosen))


def _segments(n_layer: int, ils: Sequence[int]) -> list[list[int]]:
    """Layers of each segment: a pruning point ends one."""
    ends = [il + 1 for il in ils] + [n_layer]
    return [list(range(begin, end)) for begin, end in zip([0, *ends], ends)]
