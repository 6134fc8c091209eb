"""Keep schedules: after which layers the context shrinks, to what share, and by whose attention.

Owns the schedule's data, its checks, its spelling (``"10:0.3,13:0.08"``) and its JSON (a profile). Pure data: it knows
nothing of files that hold models, sessions or the native core.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Optional, Union

from .._names import is_same, refuse_unknown
from .._numbers import integer
from ..errors import one_line
from .profile_json import parse_json

QUESTION = "question"
BEFORE_LAYER_0 = -1
MAX_POINTS = 63  # one fewer than LAZY_MAX_SEGMENTS of lazygguf.h
MAX_QUERY = 128  # LAZY_MAX_QUERY
DEFAULT_QUERY = 24  # LAZY_DEFAULT_QUERY: the last tokens that ask where the question is not known
MAX_POOL = 255
INT32_MAX = 2**31 - 1
PROFILE_KEY = "lazygguf.profile"

_POINT_KEYS = ("il", "keep", "heads", "n_query", "pool", "query_max", "n_layers", "mass", "keep_min")
_SCHEDULE_KEYS = (
    "n_sink",
    "min_prompt",
    "max_revive",
    "revive_margin",
    "mean_revive",
    "decode_cached",
    "dense_unasked",
)
_PROFILE_NOTES = ("model", "measurements")  # of a profile; kept in the file, not used here


Head = Union[int, tuple[int, int]]


@dataclass(frozen=True)
class PruningPoint:
    """One place where the context shrinks: after layer ``il`` at most ``keep`` of all tokens go on.

    Attributes:
        il: layer after which tokens are dropped, 0-based, at most ``n_layer - 2``; -1 is before layer 0, where the
            scores come from outside (``LazyModel.eval(scores=...)``).
        keep: share of the tokens in the context that go on, in (0, 1].
        heads: attention heads whose scores decide, combined by the maximum of each head's own softmax: numbers, heads
            of layer ``il``, or pairs (layer, head), of layers between the point before and this one. None is the
            mean over all heads (the LazyLLM paper, arXiv:2407.14057).
        n_query: how many of the newest tokens ask (1 to 128; 1 is the paper), or ``"question"``: the span of
            the last user turn's question.
        pool: scores are averaged over this many neighbours by position; odd, 1 to 255, 1 is none.
        query_max: take the maximum over the tokens that ask, head by head, instead of their mean: then one word of the
            question is enough to keep a passage.
        n_layers: without ``heads``: the maximum over this many layers, ``il`` the last of them, all after the point
            before (CLAA's cross-layer scores); 1 is the paper.
        mass: where fewer tokens than ``keep`` allows hold this share of all scores, only those go on, so that an easy
            prompt costs less; in (0, 1], 1 is no such rule. Scores from outside must not be below 0 then.
        keep_min: share of the tokens that go on however little of the mass they hold; in [0, ``keep``].
    """

    il: int
    keep: float
    heads: Optional[tuple[Head, ...]] = None
    n_query: Union[int, str] = 1
    pool: int = 1
    query_max: bool = False
    n_layers: int = 1
    mass: float = 1.0
    keep_min: float = 0.0

    def __post_init__(self) -> None:
        problem = _point_problem(self)
        if problem:
            raise ValueError(f'keep schedule "{_plain(f"{self.il}:{_spell_keep(self.keep)}")}": {problem}')
        if self.heads is not None:
            object.__setattr__(self, "heads", _heads(self))
        for name in ("keep", "mass", "keep_min"):
            object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def layer_heads(self) -> Optional[tuple[tuple[int, int], ...]]:
        """The heads as pairs (layer, head)."""
        if self.heads is None:
            return None
        return tuple(head if isinstance(head, tuple) else (self.il, head) for head in self.heads)

    def __str__(self) -> str:
        return f"{self.il}:{_spell_keep(self.keep)}"


@dataclass(frozen=True)
class KeepSchedule:
    """Where a context is pruned and how pruned tokens come back.

    Attributes:
        points: the pruning points; layers ascending, shares never rising.
        n_sink: the first ``n_sink`` tokens are never pruned.
        min_prompt: contexts shorter than this many tokens run dense.
        max_revive: pruned tokens brought back per decode step, highest scores first; -1 is no limit (the paper's
            rule). Each point has an even part of what the points before it left over. A later prompt on the same
            session is not limited by it.
        revive_margin: a decode step brings a token back only where its score is this share above the lowest one
            that was selected (1.0 is twice it); 0 is no such rule (the paper's). It makes decoding faster, and
            lost answers of later turns in our measurements.
        mean_revive: tokens brought back per decode step on average. A step that brings back fewer saves the rest for
            later steps, each of which still brings back ``max_revive`` at most: a passage that becomes important comes
            back at once, and decoding stays fast. After a prompt ``max_revive`` are saved. 0 is no such limit.
        decode_cached: a decode step attends to every token that a segment has computed, not to the selected ones
            alone (the paper's rule); which come back is decided as ever.
        dense_unasked: a prompt whose question is not known (plain text to go on with, a question before a long text)
            is read densely where a point's ``n_query`` is ``"question"``; else its last 24 tokens ask.
    """

    points: tuple[PruningPoint, ...]
    n_sink: int = 4
    min_prompt: int = 256
    max_revive: int = 4
    revive_margin: float = 0.0
    mean_revive: float = 0.0
    decode_cached: bool = False
    dense_unasked: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.points, Iterable) or isinstance(self.points, str):
            raise TypeError(f"points is {repr(self.points)[:60]}, expected a list of PruningPoint")
        object.__setattr__(self, "points", tuple(self.points))
        for point in self.points:
            if not isinstance(point, PruningPoint):
                raise TypeError(f"points has {repr(point)[:60]}, expected a list of PruningPoint")
        problem = _schedule_problem(self)
        if problem:
            raise ValueError(f'keep schedule "{self}": {problem}')

    def __str__(self) -> str:
        """The spelling ``"il:keep,il:keep"``, which ``parse`` reads back."""
        return ",".join(str(point) for point in self.points)

    @classmethod
    def parse(cls, spelling: str, **settings: Any) -> KeepSchedule:
        """Reads a spelling such as ``"10:0.3,13:0.08"``.

        Args:
            spelling: comma-separated ``il:keep`` pairs.
            **settings: ``n_sink``, ``min_prompt``, ``max_revive``, ``revive_margin``, ``mean_revive``,
                ``decode_cached``, ``dense_unasked`` of the schedule, and ``heads``, ``n_query``, ``pool``,
                ``query_max``, ``n_layers``, ``mass``, ``keep_min``, which then hold for every point inside the model.

        Raises:
            ValueError: the spelling or a setting is wrong; the message holds the value and what was expected.
        """
        if not isinstance(spelling, str):
            raise TypeError(f'spelling is {repr(spelling)[:60]}, expected text such as "10:0.3,13:0.08"')
        refuse_unknown(settings, _POINT_KEYS[2:] + _SCHEDULE_KEYS, "keep schedule setting")
        asking = {key: settings.pop(key) for key in _POINT_KEYS[2:] if key in settings}
        pairs = [_parse_pair(spelling, pair) for pair in spelling.split(",")]
        points = (PruningPoint(il, keep, **({} if il == BEFORE_LAYER_0 else asking)) for il, keep in pairs)
        return cls(tuple(points), **settings)

    @classmethod
    def paper(cls, spelling: str) -> KeepSchedule:
        """The LazyLLM paper's rule (arXiv:2407.14057) at the given layers and shares.

        Mean over the heads, the last token asks, no pooling, no protected tokens, every length pruned, and
        pruned tokens come back without limit.
        """
        return cls.parse(spelling, n_sink=0, min_prompt=0, max_revive=-1, revive_margin=0.0)

    @classmethod
    def auto(cls, n_layer: int, windowed: Collection[int] = ()) -> Optional[KeepSchedule]:
        """The careful default for a model without a profile.

        The first 60% of the layers see every token. Half of the tokens go on to 80% of the layers and 30% to the end,
        chosen by the highest attention that any word of the user's question pays them, averaged over 21 neighbours:
        on the models that were calibrated this rule needed the fewest tokens (docs/selection.md). About 76% of the
        dense work remains
        (``0.6 + 0.2 * 0.5 + 0.2 * 0.3``). A prompt without a question is read densely.

        Args:
            n_layer: layers of the model.
            windowed: those that see a window only. A point that would fall on one is put after the next layer that
                sees all.

        Returns:
            None for a model with too few layers to leave one after the first point (fewer than 3): it runs
            dense.
        """
        n_layer = integer("n_layer", n_layer, 0, INT32_MAX)
        depths = ((6, 0.5), (8, 0.3))  # tenths of the layers, share kept
        seeing = [il for il in range(n_layer) if il not in windowed]
        wanted = [(-(-n_layer * tenths // 10) - 1, keep) for tenths, keep in depths]
        pairs = [(next((il for il in seeing if il >= first), n_layer), keep) for first, keep in wanted]
        points = [
            PruningPoint(il, keep, n_query=QUESTION, pool=21, query_max=True)
            for il, keep in pairs
            if 0 <= il <= n_layer - 2
        ]
        distinct = [point for i, point in enumerate(points) if i == 0 or point.il > points[i - 1].il]
        return cls(tuple(distinct), max_revive=2, decode_cached=True, dense_unasked=True) if distinct else None

    @classmethod
    def drafted(cls) -> KeepSchedule:
        """The default with a draft model: it chooses a fifth of the tokens before layer 0 where something is asked."""
        return cls((PruningPoint(BEFORE_LAYER_0, 0.2),), dense_unasked=True)

    @property
    def entry(self) -> Optional[PruningPoint]:
        """The point before layer 0, which needs scores from outside; None where there is none."""
        return self.points[0] if self.points[0].il == BEFORE_LAYER_0 else None

    def validate(self, n_layer: int, n_head: int) -> None:
        """Checks the schedule against a model.

        Raises:
            ValueError: a point lies after the last usable layer or names a head the model does not have.
        """
        n_layer, n_head = integer("n_layer", n_layer, 0, INT32_MAX), integer("n_head", n_head, 0, INT32_MAX)
        for point in self.points:
            if point.il > n_layer - 2:
                raise ValueError(
                    f'keep schedule "{self}": il is {point.il}, expected at most {n_layer - 2} '
                    f"(the model has {n_layer} layers, and one must follow)"
                )
            most = max((head for _, head in point.layer_heads or ()), default=0)
            if most >= n_head:
                raise ValueError(
                    f'keep schedule "{self}": head is {most}, expected at most {n_head - 1} '
                    f"(the model has {n_head} heads)"
                )

    def to_dict(self) -> dict[str, Any]:
        """The schedule as plain JSON values; ``from_dict`` reads it back."""
        points = [{key: getattr(point, key) for key in _POINT_KEYS} for point in self.points]
        for point in points:
            heads = point["heads"]
            point["heads"] = heads and [list(head) if isinstance(head, tuple) else head for head in heads]
        return {"points": points, **{key: getattr(self, key) for key in _SCHEDULE_KEYS}}

    @classmethod
    def from_dict(cls, profile: Mapping[str, Any]) -> KeepSchedule:
        """Reads the form ``to_dict`` gives.

        A profile's notes (``model``, ``measurements``) may stand beside it and are not looked at. Every other
        unknown key is refused.
        """
        if not isinstance(profile, Mapping):
            raise ValueError(f"keep profile is {type(profile).__name__}, expected a JSON object")
        refuse_unknown(profile, ("points", *_SCHEDULE_KEYS, *_PROFILE_NOTES), "keep profile key")
        points = profile.get("points")
        if not isinstance(points, list):
            raise ValueError("keep profile has no list of points")
        settings = {key: profile[key] for key in _SCHEDULE_KEYS if key in profile}
        return cls(tuple(_point_from_dict(point) for point in points), **settings)

    def to_json(self) -> str:
        """The schedule as profile JSON."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> KeepSchedule:
        """Reads profile JSON.

        Raises:
            ValueError: not JSON, an unknown key, or a value out of range.
        """
        return cls.from_dict(parse_json(text, "keep profile"))


def _parse_pair(spelling: str, pair: str) -> tuple[int, float]:
    il, colon, keep = pair.partition(":")
    try:
        if not colon:
            raise ValueError(pair)
        return int(il), float(keep)
    except ValueError:
        hint = 'expected pairs "il:keep" such as "10:0.3,13:0.08", "auto" or "off"'
        said = f'keep schedule "{_plain(spelling)}": cannot read "{_plain(pair.strip())}"'
        raise ValueError(f"{said}, {hint}") from None


def _point_from_dict(point: Any) -> PruningPoint:
    if not isinstance(point, Mapping):
        raise ValueError(f"keep profile point is {point!r}, expected a JSON object")
    refuse_unknown(point, _POINT_KEYS, "keep profile point key")
    for key in ("il", "keep"):
        if key not in point:
            raise ValueError(f"keep profile point has no {key}")
    return PruningPoint(**{str(key): value for key, value in point.items()})


def _point_problem(point: PruningPoint) -> Optional[str]:
    if not is_integer(point.il, BEFORE_LAYER_0, INT32_MAX):
        return f"il is {point.il!r}, expected an integer >= 0, or -1 (before layer 0)"
    if not _is_number(point.keep, 1) or point.keep == 0:
        return f"keep is {_spell_keep(point.keep)}, expected a value in (0, 1]"
    if not is_same(point.n_query, QUESTION) and not is_integer(point.n_query, 1, MAX_QUERY):
        return f'n_query is {point.n_query!r}, expected an integer in [1, {MAX_QUERY}] or "{QUESTION}"'
    if not is_integer(point.pool, 1, MAX_POOL) or point.pool % 2 == 0:
        return f"pool is {point.pool!r}, expected an odd integer in [1, {MAX_POOL}]"
    if not isinstance(point.query_max, bool):
        return f"query_max is {point.query_max!r}, expected true or false"
    if not is_integer(point.n_layers, 1, max(1, point.il + 1)):
        return f"n_layers is {point.n_layers!r}, expected an integer in [1, {max(1, point.il + 1)}]"
    if not _is_number(point.mass, 1) or point.mass == 0:
        return f"mass is {point.mass!r}, expected a value in (0, 1]"
    if not _is_number(point.keep_min, 1) or point.keep_min > point.keep:
        return f"keep_min is {point.keep_min!r}, expected a value in [0, {_spell_keep(point.keep)}]"
    return None


def _heads(point: PruningPoint) -> tuple[Head, ...]:
    given = point.heads
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise ValueError(f'keep schedule "{point}": heads is {given!r}, expected a list of heads or None')
    heads: tuple[Any, ...] = tuple(tuple(head) if isinstance(head, (list, tuple)) else head for head in given)
    if not heads or not all(_is_head(head, point.il) for head in heads) or len(set(heads)) != len(heads):
        raise ValueError(
            f'keep schedule "{point}": heads is {list(given)}, expected different integers >= 0, or pairs of a layer '
            f"up to {point.il} and one"
        )
    return heads


def _is_head(head: Any, il: int) -> bool:
    if isinstance(head, tuple):
        return len(head) == 2 and is_integer(head[0], 0, il) and is_integer(head[1], 0, INT32_MAX)
    return is_integer(head, 0, INT32_MAX)


def _schedule_problem(schedule: KeepSchedule) -> Optional[str]:
    points = schedule.points
    if not 1 <= len(points) <= MAX_POINTS:
        return f'{len(points)} pruning points, expected 1 to {MAX_POINTS} (keep="off" prunes nothing)'
    for before, after in zip(points, points[1:]):
        if after.il <= before.il:
            return f"il is {after.il} after {before.il}, expected ascending layers"
        if after.keep > before.keep:
            shares = f"{_spell_keep(after.keep)} after {_spell_keep(before.keep)}"
            return f"keep is {shares}, expected shares that never rise"
        first = min((il for il, _ in after.layer_heads or ()), default=after.il + 1 - after.n_layers)
        if first <= before.il:
            return f"layer {first} scores after {after.il}, expected layers after the point before, {before.il}"
    for key, least in (("n_sink", 0), ("min_prompt", 0), ("max_revive", -1)):
        value = getattr(schedule, key)
        if not is_integer(value, least, INT32_MAX):
            return f"{key} is {value!r}, expected an integer >= {least}"
    for key in ("revive_margin", "mean_revive"):
        if not _is_number(getattr(schedule, key), sys.float_info.max):
            return f"{key} is {getattr(schedule, key)!r}, expected a number >= 0"
    if schedule.mean_revive > 0 and schedule.max_revive < 0:
        return f"mean_revive is {schedule.mean_revive!r} and max_revive has no limit (-1), which it needs"
    for key in ("decode_cached", "dense_unasked"):
        if not isinstance(getattr(schedule, key), bool):
            return f"{key} is {getattr(schedule, key)!r}, expected true or false"
    return None


def is_integer(value: Any, least: int, most: float = math.inf) -> bool:
    """Whether a value is an integer in [least, most], and no bool."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_number(value: Any, most: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most


def _plain(text: str) -> str:
    """A spelling for a message, whatever stands in it."""
    return one_line(text.encode("utf-8", "backslashreplace").decode())


def _spell_keep(keep: Any) -> str:
    text = repr(keep)
    return text[:-2] if text.endswith(".0") else text
