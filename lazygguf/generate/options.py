"""The options of completions: names, types, defaults and refusals.

Owns what ``create_completion`` and ``create_chat_completion`` take; names and meaning are ``llama_cpp.Llama``'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, TypedDict, Union

from .._names import is_same, refuse_unknown
from .._numbers import as_integer, as_number, flag, integer
from ..read.prompt import Prompt
from ..text.grammar import GrammarLike, grammar_of_response_format
from ..text.stream import check_stops
from .loop import LogitsProcessor, Request, StoppingCriterion
from .sampling import SamplingParams


class SamplingArguments(TypedDict, total=False):
    """How tokens are chosen; meaning and defaults as ``SamplingParams``."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repeat_penalty: float
    frequency_penalty: float
    presence_penalty: float
    seed: Optional[int]
    logit_bias: Optional[Mapping[Any, float]]
    mirostat_mode: int
    mirostat_tau: float
    mirostat_eta: float


class GenerateArguments(SamplingArguments, total=False):
    """What ``LazyModel.generate`` takes."""

    last_n: int


class CompletionArguments(SamplingArguments, total=False):
    """What both kinds of completion take.

    Attributes:
        max_tokens: None or <= 0 is until the context is full.
        stop: texts that end the answer.
        model: the name that results carry; None is the model's path.
        grammar: GBNF text or a ``llama_cpp.LlamaGrammar`` that the answer must match.
        response_format: ``{"type": "json_object"}``, with ``"schema"`` where it has one, or OpenAI's ``{"type":
            "json_schema", "json_schema": {"name": ..., "schema": ...}}`` makes the answer JSON (docs/json.md).
        logits_processor: one or more, called with the ids so far and the logits; give new logits.
        stopping_criteria: one or more, called with the ids so far and the logits; true ends the answer.
        tfs_z: of ``llama_cpp``; only 1.0, which does nothing.
        parse_special: the text of control tokens such as ``<|im_end|>`` in the prompt becomes those tokens. A prompt of
            ``create_completion`` is read so (True, as ``llama_cpp`` does); what messages of a chat say stays text
            (False), since it may be a stranger's document.
    """

    max_tokens: Optional[int]
    stop: Union[str, Sequence[str], None]
    model: Optional[str]
    grammar: Optional[GrammarLike]
    response_format: Optional[Mapping[str, Any]]
    logits_processor: Union[LogitsProcessor, Sequence[LogitsProcessor], None]
    stopping_criteria: Union[StoppingCriterion, Sequence[StoppingCriterion], None]
    tfs_z: float
    parse_special: bool


class TextArguments(CompletionArguments, total=False):
    """What ``create_completion`` takes; ``max_tokens`` is 16 and ``temperature`` 0.8 where they are not given.

    Attributes:
        logprobs: how many alternatives to each token are reported with their log-probabilities.
        echo: put the prompt before the text.
    """

    logprobs: Optional[int]
    echo: bool


class ChatArguments(CompletionArguments, total=False):
    """What ``create_chat_completion`` takes; ``temperature`` is 0.2 and ``max_tokens`` None where they are not given.

    Attributes:
        logprobs: report log-probabilities.
        top_logprobs: how many alternatives to each token are reported too.
    """

    logprobs: Optional[bool]
    top_logprobs: Optional[int]


_JSON_INSTEAD = 'ask for JSON with response_format={"type": "json_object", "schema": ...}'
_REFUSED = {
    "suffix": "lazygguf does not fill in the middle",
    "functions": f"lazygguf does not call functions; {_JSON_INSTEAD}",
    "function_call": "lazygguf does not call functions",
    "tools": f"lazygguf does not call tools; {_JSON_INSTEAD}",
    "tool_choice": "lazygguf does not call tools",
}
_CALLS_NOTHING: dict[str, tuple[Any, ...]] = {
    "functions": ([],),
    "function_call": ("none", "auto"),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
}
_SAMPLING = tuple(SamplingArguments.__annotations__)
TEXT_OPTIONS = tuple(TextArguments.__annotations__)
CHAT_OPTIONS = tuple(ChatArguments.__annotations__)
MAX_LOGPROBS = 1000


@dataclass(frozen=True)
class CompletionOptions:
    """Checked options of a completion.

    Attributes:
        sampling: how tokens are chosen.
        max_tokens: None is until the context is full.
        stops: texts that end the answer.
        n_logprobs: alternatives per token; None gives no log-probabilities.
        echo: put the prompt before the text.
        model: the name that results carry; None is the model's path.
        grammar: what the answer must match.
        logits_processors, stopping_criteria: the callables.
        parse_special: the text of control tokens in the prompt becomes those tokens.
    """

    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: Optional[int] = None
    stops: list[str] = field(default_factory=list)
    n_logprobs: Optional[int] = None
    echo: bool = False
    model: Optional[str] = None
    grammar: Optional[GrammarLike] = None
    logits_processors: Sequence[LogitsProcessor] = ()
    stopping_criteria: Sequence[StoppingCriterion] = ()
    parse_special: bool = False

    @classmethod
    def of_text(cls, given: Mapping[str, Any]) -> CompletionOptions:
        """Options of ``create_completion``.

        Raises:
            ValueError, TypeError: an unknown option, one that lazygguf does not have, or a value out of range.
        """
        options = _known({"max_tokens": 16, "parse_special": True, **given}, TEXT_OPTIONS)
        n_logprobs = options.get("logprobs")
        if n_logprobs is not None:
            n_logprobs = integer("logprobs", n_logprobs, 0, MAX_LOGPROBS)
        echo = flag("echo", options.get("echo"))
        if echo and n_logprobs is not None:
            raise ValueError("echo together with logprobs is refused: a lazy read computes no logits of prompt tokens")
        return cls(n_logprobs=n_logprobs, echo=echo, **_shared(options))

    @classmethod
    def of_chat(cls, given: Mapping[str, Any]) -> CompletionOptions:
        """Options of ``create_chat_completion``; errors as ``of_text``."""
        options = _known({"temperature": 0.2, **given}, CHAT_OPTIONS)
        top, is_asked = options.get("top_logprobs"), flag("logprobs", options.get("logprobs"))
        if top is not None and not is_asked:
            raise ValueError("top_logprobs needs logprobs=True")
        n_logprobs = integer("top_logprobs", 0 if top is None else top, 0, MAX_LOGPROBS) if is_asked else None
        return cls(n_logprobs=n_logprobs, **_shared(options))

    def request(self, prompt: Prompt, started: float) -> Request:
        """The generation these options ask for."""
        return Request(
            prompt,
            stops=self.stops,
            max_tokens=self.max_tokens,
            sampling=self.sampling,
            grammar=self.grammar,
            n_logprobs=self.n_logprobs,
            logits_processors=self.logits_processors,
            stopping_criteria=self.stopping_criteria,
            started=started,
        )


def _known(given: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """The options without those that say nothing; unknown and unsupported ones are refused."""
    for name, reason in _REFUSED.items():
        if given.get(name) is not None and not any(is_same(given[name], v) for v in _CALLS_NOTHING.get(name, ())):
            raise ValueError(f"{name} is not supported: {reason}")
    if as_number(given.get("tfs_z", 1.0)) != 1.0:
        raise ValueError(f"tfs_z is {given['tfs_z']!r}, expected 1.0 (llama.cpp has removed this sampler)")
    options = {name: value for name, value in given.items() if name not in _REFUSED}
    refuse_unknown(options, known, "completion option")
    return options


def _shared(options: Mapping[str, Any]) -> dict[str, Any]:
    grammar = options.get("grammar")
    if options.get("response_format") is not None:
        if grammar is not None:
            raise ValueError("grammar and response_format are both given, expected one of them")
        grammar = grammar_of_response_format(options["response_format"])
    sampling = {name: options[name] for name in _SAMPLING if name in options}
    parse_special = options.get("parse_special", False)
    if not isinstance(parse_special, bool):
        raise TypeError(f"parse_special is {parse_special!r}, expected True or False")
    model = options.get("model")
    if model is not None and not isinstance(model, str):
        raise TypeError(f"model is {repr(model)[:60]}, expected the name that results carry, or None")
    return {
        "parse_special": parse_special,
        "sampling": SamplingParams(**sampling),
        "max_tokens": _max_tokens(options.get("max_tokens")),
        "stops": check_stops(options.get("stop")),
        "model": model,
        "grammar": grammar,
        "logits_processors": _callables("logits_processor", options.get("logits_processor")),
        "stopping_criteria": _callables("stopping_criteria", options.get("stopping_criteria")),
    }


def _max_tokens(value: Any) -> Optional[int]:
    if value is None:
        return None
    number = as_integer(value)
    if number is None:
        raise ValueError(f"max_tokens is {value!r}, expected an integer, or None for no limit")
    return number if number > 0 else None


def _callables(name: str, value: Any) -> list[Any]:
    """One callable or a list of them (llama_cpp's lists are callable themselves)."""
    if value is not None and not callable(value) and not isinstance(value, Iterable):
        raise TypeError(f"{name} is {value!r}, expected a function of ids and logits, or a list of them")
    found = [] if value is None else [value] if callable(value) else list(value)
    for hook in found:
        if not callable(hook):
            raise TypeError(f"{name} holds {hook!r}, expected functions of ids and logits")
    return found
