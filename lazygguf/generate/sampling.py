"""Choosing the next token from logits, by llama.cpp's samplers and a grammar.

Owns the sampling parameters with their ranges, and the llama.cpp sampler objects with their lifetime. It gets
logits and gives token ids; it knows nothing of sessions or text.
"""

from __future__ import annotations

import ctypes
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

import llama_cpp
import numpy as np
import numpy.typing as npt

from .._numbers import as_integer, as_number, integer
from ..errors import LazyError
from ..text.grammar import GrammarFilter, GrammarLike
from ..text.tokenizer import Tokenizer

SEED_MAX = 2**32 - 1  # to llama.cpp's samplers this number says "draw one"
SEED_MAX_INSTEAD = 2_654_435_769  # whose answers seed SEED_MAX gives here: any other number would do
MIROSTAT_M = 100  # tokens that mirostat 1 estimates from, llama.cpp's fixed value
INT32_MAX = 2**31 - 1

CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)], align=True)  # llama_token_data


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen. Names, order and defaults are those of
    ``llama_cpp.Llama.create_completion``.

    Attributes:
        temperature: 0 takes the most probable token; higher is more varied. Below 0: any token by its probability,
            whatever the other rules say, as in ``llama_cpp``.
        top_k: only the ``top_k`` most probable tokens; 0 or -1 is all.
        top_p: only the most probable tokens that together reach this probability; in [0, 1], 1 is all, 0 only the most
            probable one.
        min_p: only tokens at least this probable relative to the most probable one; in [0, 1], 0 is all.
        typical_p: locally typical sampling (arXiv:2202.00666); in (0, 1], 1 is off.
        repeat_penalty: divides the logits of tokens among the last ``last_n`` sampled ones; 1 and 0 are off.
        frequency_penalty: subtracted per occurrence among them.
        presence_penalty: subtracted once from each token among them.
        last_n: sampled tokens that the penalties look at.
        seed: 0 to 2**32 - 1 makes the choice repeatable; None or -1 draws a new seed. 2**32 - 1 is repeatable too,
            where ``llama_cpp`` draws one: it gives what 2654435769 gives.
        logit_bias: added to the logits, by token id; ``-inf`` forbids a token.
        mirostat_mode: 1 or 2 replace top_k, top_p, min_p and typical_p by mirostat (arXiv:2007.14966); 0 is
            off.
        mirostat_tau: mirostat's target surprise.
        mirostat_eta: mirostat's learning rate.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    last_n: int = 64
    seed: Optional[int] = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    mirostat_mode: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1

    def __post_init__(self) -> None:
        """Raises ValueError or TypeError with the name, the value and the range."""
        for name, low, high, low_allowed in _FLOAT_RANGES:
            object.__setattr__(self, name, _checked_float(name, getattr(self, name), low, high, low_allowed))
        for name, least, most in _INT_RANGES:
            object.__setattr__(self, name, integer(name, getattr(self, name), least, most))
        if self.seed is not None:
            seed = as_integer(self.seed)
            if seed is None or not -1 <= seed <= SEED_MAX:
                raise ValueError(f"seed is {self.seed!r}, expected an integer in [0, {SEED_MAX}], or -1 for a new one")
            object.__setattr__(self, "seed", seed)
        object.__setattr__(self, "logit_bias", _check_bias(self.logit_bias))


_FLOAT_RANGES = (  # name, lowest, highest, whether the lowest is allowed
    ("temperature", -math.inf, math.inf, False),
    ("top_p", 0.0, 1.0, True),
    ("min_p", 0.0, 1.0, True),
    ("typical_p", 0.0, 1.0, False),
    ("repeat_penalty", 0.0, math.inf, True),
    ("frequency_penalty", -math.inf, math.inf, False),
    ("presence_penalty", -math.inf, math.inf, False),
    ("mirostat_tau", 0.0, math.inf, False),
    ("mirostat_eta", 0.0, math.inf, False),
)
_INT_RANGES = (("top_k", -1, INT32_MAX), ("last_n", 0, INT32_MAX), ("mirostat_mode", 0, 2))


class Sampler:
    """A chain of llama.cpp samplers with its own random state, for one generation.

    Bias, penalties, top_k, typical_p, top_p, min_p, temperature, in llama.cpp's order. A grammar is applied before
    all of them, but only when the token chosen without it is not allowed: the same tokens can come out, and the
    vocabulary is rarely gone through (llama.cpp does the same).
    """

    def __init__(self, tokenizer: Tokenizer, params: SamplingParams, grammar: Optional[GrammarLike] = None) -> None:
        """Raises ValueError for a grammar that cannot be parsed or a ``logit_bias`` of an unknown token."""
        self.n_vocab = tokenizer.n_vocab
        self._chain: Any = None
        self._grammar = GrammarFilter(tokenizer, grammar) if grammar is not None else None
        self._data = np.zeros(self.n_vocab, CANDIDATE)
        self._ids = np.arange(self.n_vocab, dtype=np.int32)
        self._array: Any = llama_cpp.llama_token_data_array()
        self._chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        try:
            for part in _parts(params, self.n_vocab):
                llama_cpp.llama_sampler_chain_add(self._chain, part)
        except BaseException:
            self.close()
            raise

    def sample(self, logits: npt.NDArray[np.float32]) -> int:
        """Chooses a token.

        Does not record it: call ``accept`` with the token that really goes on.

        Args:
            logits: (n_vocab,) float32.

        Raises:
            ValueError: logits of another shape or with NaN.
            LazyError: no token is allowed (the grammar, or a bias of ``-inf``, forbids all).
        """
        if logits.shape != (self.n_vocab,):
            raise ValueError(f"logits have the shape {logits.shape}, expected ({self.n_vocab},)")
        token = self._choose(logits, with_grammar=False)
        if self._grammar is not None and not self._grammar.allows(token):
            token = self._choose(logits, with_grammar=True)
        return token

    def accept(self, token: int) -> None:
        """Records a token for the penalties and the grammar.

        Raises:
            ValueError: the token is outside the vocabulary or the grammar forbids it.
        """
        if not 0 <= token < self.n_vocab:
            raise ValueError(f"token id is {token}, expected a value in [0, {self.n_vocab})")
        if self._grammar is not None:
            self._grammar.accept(token)
        llama_cpp.llama_sampler_accept(self._open(), token)

    def close(self) -> None:
        """Frees the samplers; a second call does nothing."""
        chain, self._chain = self._chain, None
        if chain:
            llama_cpp.llama_sampler_free(chain)
        if self._grammar is not None:
            self._grammar.close()

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_chain", None):
            self.close()

    def _choose(self, logits: npt.NDArray[np.float32], with_grammar: bool) -> int:
        chain = self._open()
        data, array = self._data, self._array
        data["id"], data["logit"], data["p"] = self._ids, logits, 0.0
        if with_grammar and self._grammar is not None:
            self._grammar.apply(data)
        array.data = data.ctypes.data_as(llama_cpp.llama_token_data_p)
        array.size, array.selected, array.sorted = self.n_vocab, -1, False
        best = float(data["logit"].max())
        if math.isnan(best):
            raise ValueError("logits hold NaN")
        if best == -math.inf:
            raise LazyError("the grammar allows no token of this model's vocabulary here")
        llama_cpp.llama_sampler_apply(chain, ctypes.byref(array))
        chosen = array.data[array.selected] if 0 <= array.selected < array.size else None
        if chosen is None or chosen.logit == -math.inf:
            raise LazyError("logit_bias forbids every token that is possible here")
        return int(chosen.id)

    def _open(self) -> Any:
        if self._chain is None:
            raise RuntimeError("the sampler is closed")
        return self._chain


def _parts(params: SamplingParams, n_vocab: int) -> list[Any]:
    """The llama.cpp samplers in the order they are applied."""
    parts = [_bias(params.logit_bias, n_vocab)] if params.logit_bias else []
    penalties = (params.repeat_penalty or 1.0, params.frequency_penalty, params.presence_penalty)
    if penalties != (1.0, 0.0, 0.0):
        parts.append(llama_cpp.llama_sampler_init_penalties(n_vocab, params.last_n, *penalties))
    if params.temperature == 0:
        return [*parts, llama_cpp.llama_sampler_init_greedy()]
    seed = secrets.randbelow(SEED_MAX) if params.seed is None or params.seed == -1 else params.seed
    if seed == SEED_MAX:
        seed = SEED_MAX_INSTEAD
    if params.temperature < 0:
        return [*parts, llama_cpp.llama_sampler_init_dist(seed)]
    if params.mirostat_mode:
        return [*parts, llama_cpp.llama_sampler_init_temp(params.temperature), _mirostat(params, n_vocab, seed)]
    return [
        *parts,
        llama_cpp.llama_sampler_init_top_k(max(params.top_k, 0)),
        llama_cpp.llama_sampler_init_typical(params.typical_p, 1),
        llama_cpp.llama_sampler_init_top_p(params.top_p, 1),
        llama_cpp.llama_sampler_init_min_p(params.min_p, 1),
        llama_cpp.llama_sampler_init_temp(params.temperature),
        llama_cpp.llama_sampler_init_dist(seed),
    ]


def _mirostat(params: SamplingParams, n_vocab: int, seed: Optional[int]) -> Any:
    tau, eta = params.mirostat_tau, params.mirostat_eta
    if params.mirostat_mode == 1:
        return llama_cpp.llama_sampler_init_mirostat(n_vocab, seed, tau, eta, MIROSTAT_M)
    return llama_cpp.llama_sampler_init_mirostat_v2(seed, tau, eta)


def _bias(logit_bias: Mapping[int, float], n_vocab: int) -> Any:
    biases = (llama_cpp.llama_logit_bias * len(logit_bias))()
    for entry, (token, bias) in zip(biases, logit_bias.items()):
        if not 0 <= token < n_vocab:
            raise ValueError(f"logit_bias has token id {token}, expected a value in [0, {n_vocab})")
        entry.token, entry.bias = token, bias
    return llama_cpp.llama_sampler_init_logit_bias(n_vocab, len(biases), biases)


def _checked_float(name: str, value: Any, low: float, high: float, low_allowed: bool) -> float:
    number = as_number(value)
    above = number is not None and math.isfinite(number) and (number >= low if low_allowed else number > low)
    if number is None or not above or number > high:
        bracket, end = "[" if low_allowed else "(", "]" if math.isfinite(high) else ")"
        raise ValueError(f"{name} is {value!r}, expected a value in {bracket}{low:g}, {high:g}{end}")
    return number


def _check_bias(logit_bias: Optional[Mapping[Any, Any]]) -> dict[int, float]:
    """Token ids may be strings, as in OpenAI's JSON."""
    checked: dict[int, float] = {}
    if logit_bias is not None and not isinstance(logit_bias, Mapping):
        raise TypeError(f"logit_bias is {logit_bias!r}, expected a dictionary of token ids and numbers")
    for token, bias in (logit_bias or {}).items():
        try:
            checked[int(token)] = float(bias)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"logit_bias has {token!r}: {bias!r}, expected a token id and a number") from None
        if math.isnan(checked[int(token)]) or checked[int(token)] == math.inf:
            raise ValueError(f"logit_bias of token {token} is {bias!r}, expected a number below infinity")
    return checked
