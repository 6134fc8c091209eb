"""How a draft model's attention becomes scores: which layers, heads and asking tokens count, and the pooling.

Owns the profile's data, its checks, its JSON, and which profile has precedence. It knows nothing of sessions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

from .._names import is_same, path_text, refuse_unknown
from ..errors import ModelFileError
from .keep_schedule import MAX_POOL, MAX_QUERY, QUESTION, is_integer
from .profile_json import parse_json

SCORING_KEY = "lazygguf.scoring"
MEAN, MAX = "mean", "max"
_KEYS = ("layers", "heads", "n_query", "over_query", "pool")
_NOTES = ("model", "measurements")  # kept in the file, not used here


@dataclass(frozen=True)
class ScoringProfile:
    """How a draft scores.

    A token's score is the attention that the asking tokens pay it: the mean over heads, the maximum over ``layers``,
    then the average over the tokens around it.

    Attributes:
        layers: 0-based, ascending; the draft reads no further than the last one.
        heads: by layer, the heads that count; of a layer that is not named all heads do. None names no layer.
        n_query: how many of the question's last tokens ask, or ``"question"``: all of them (at most 128).
        over_query: ``"mean"`` over the asking tokens, or ``"max"``, since each may ask for something else.
        pool: over how many tokens a score is averaged: an odd number, itself in the middle and 1 for none, or how many
            before and how many after it. The answer mostly stands after the words that the question attends to.
    """

    layers: tuple[int, ...]
    heads: Optional[Mapping[int, tuple[int, ...]]] = None
    n_query: Union[int, str] = QUESTION
    over_query: str = MEAN
    pool: Union[int, tuple[int, int]] = 1

    def __post_init__(self) -> None:
        if not isinstance(self.layers, Iterable):
            raise ValueError(
                f"scoring profile: layers are {self.layers!r}, expected different integers >= 0, ascending"
            )
        object.__setattr__(self, "layers", tuple(self.layers))
        if isinstance(self.pool, list):
            object.__setattr__(self, "pool", tuple(self.pool))
        problem = self._problem()
        if problem:
            raise ValueError(f"scoring profile: {problem}")

    def _problem(self) -> Optional[str]:
        layers = self.layers
        if not layers or not all(is_integer(il, 0) for il in layers) or list(layers) != sorted(set(layers)):
            return f"layers are {list(layers)}, expected different integers >= 0, ascending"
        if self.heads is not None and not isinstance(self.heads, Mapping):
            return f"heads are {self.heads!r}, expected lists of heads by layer, or None"
        for il, heads in (self.heads or {}).items():
            if il not in layers or not heads or not all(is_integer(head, 0) for head in heads):
                return f"heads of layer {il!r} are {heads!r}, expected integers >= 0 for one of the layers"
        if not is_same(self.n_query, QUESTION) and not is_integer(self.n_query, 1, MAX_QUERY):
            return f'n_query is {self.n_query!r}, expected an integer in [1, {MAX_QUERY}] or "{QUESTION}"'
        if not any(is_same(self.over_query, over) for over in (MEAN, MAX)):
            return f'over_query is {self.over_query!r}, expected "{MEAN}" or "{MAX}"'
        if isinstance(self.pool, tuple):
            fits = len(self.pool) == 2 and all(is_integer(n, 0, MAX_POOL) for n in self.pool)
        else:
            fits = is_integer(self.pool, 1, MAX_POOL) and self.pool % 2 == 1
        return None if fits else f"pool is {self.pool!r}, expected an odd integer in [1, {MAX_POOL}] or two integers"

    @property
    def around(self) -> tuple[int, int]:
        """How many tokens before and after one its score is averaged over."""
        return self.pool if isinstance(self.pool, tuple) else (self.pool // 2, self.pool // 2)

    @property
    def n_layer(self) -> int:
        """Layers that the draft runs."""
        return self.layers[-1] + 1

    @property
    def max_query(self) -> int:
        """Most tokens that ask."""
        return MAX_QUERY if self.n_query == QUESTION else int(self.n_query)

    def validate(self, n_layer: int, n_head: int) -> None:
        """Raises ValueError for a layer or head that the model does not have."""
        if self.layers[-1] >= n_layer:
            raise ValueError(f"scoring profile: layer is {self.layers[-1]}, expected at most {n_layer - 1}")
        most = max((head for heads in (self.heads or {}).values() for head in heads), default=0)
        if most >= n_head:
            raise ValueError(f"scoring profile: head is {most}, expected at most {n_head - 1}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``from_dict`` reads them back."""
        heads = None if self.heads is None else {str(il): list(heads) for il, heads in self.heads.items()}
        plain = {key: getattr(self, key) for key in _KEYS}
        pool = list(self.pool) if isinstance(self.pool, tuple) else self.pool
        return {**plain, "layers": list(self.layers), "heads": heads, "pool": pool}

    @classmethod
    def from_json(cls, text: str) -> ScoringProfile:
        """Reads profile JSON; the notes ``model`` and ``measurements`` may stand in it.

        Raises:
            ValueError: not JSON, an unknown key, or a value out of range.
        """
        return cls.from_dict(parse_json(text, "scoring profile"))

    @classmethod
    def from_dict(cls, values: Any) -> ScoringProfile:
        """Reads the values of profile JSON; errors as ``from_json``."""
        if not isinstance(values, Mapping) or not isinstance(values.get("layers"), list):
            raise ValueError("scoring profile is no JSON object with a list of layers")
        refuse_unknown(values, (*_KEYS, *_NOTES), "scoring profile key")
        settings = {key: values[key] for key in _KEYS if key in values}
        if settings.get("heads") is not None:
            settings["heads"] = _heads(settings["heads"])
        return cls(**settings)

    @classmethod
    def by_depth(cls, n_layer: int, windowed: Collection[int] = ()) -> ScoringProfile:
        """For a draft that was not calibrated: layers from 50% to 80% of its depth, the rest as for SmolLM2.

        Layers that see a window only are left out; where no other is there, the last one that sees all scores.
        """
        first = n_layer // 2
        last = max(first + 1, n_layer * 4 // 5)
        seeing = [il for il in range(n_layer) if il not in windowed] or [n_layer - 1]
        layers = tuple(il for il in seeing if first <= il < last) or (seeing[-1],)
        return cls(layers, n_query=24, over_query=MAX, pool=(10, 5))


def resolve_scoring(
    given: Union[str, ScoringProfile, None],
    metadata: Mapping[str, Any],
    shipped: Optional[Mapping[str, Any]] = None,
    windowed: Collection[int] = (),
) -> ScoringProfile:
    """The profile of a draft model.

    Args:
        given: a profile, or the path of one; None takes the one inside the model file, else the shipped one, else
            ``ScoringProfile.by_depth``.
        metadata: of the draft's checked file.
        shipped: the profile that ships for this model (``ModelFile.shipped_scoring``), None where there is none.
        windowed: layers that see a window only (``ModelFile.windowed``).

    Raises:
        ValueError: the profile is wrong or does not fit the draft.
        ModelFileError: the one inside the model file is.
        OSError: the file cannot be read.
    """
    arch = metadata["general.architecture"]
    n_layer, n_head = (int(metadata[f"{arch}.{key}"]) for key in ("block_count", "attention.head_count"))
    if given is None and SCORING_KEY in metadata:
        try:
            profile = ScoringProfile.from_json(str(metadata[SCORING_KEY]))
            profile.validate(n_layer, n_head)
        except ValueError as error:
            raise ModelFileError(f"metadata key {SCORING_KEY}: {error}") from error
        return profile
    if given is None:
        given = ScoringProfile.by_depth(n_layer, windowed) if shipped is None else ScoringProfile.from_dict(shipped)
    elif not isinstance(given, ScoringProfile):
        path = path_text("scoring", given, " with a profile, or a ScoringProfile")
        given = ScoringProfile.from_json(Path(path).read_text(encoding="utf-8"))
    given.validate(n_layer, n_head)
    return given


def _heads(values: Any) -> dict[int, tuple[int, ...]]:
    try:
        return {int(il): tuple(heads) for il, heads in values.items()}
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"scoring profile: heads are {values!r}, expected lists of heads by layer, or null") from None
