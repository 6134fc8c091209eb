"""OpenAI-shaped completions, as ``llama_cpp`` gives them.

Owns the options of ``create_completion`` and ``create_chat_completion`` (names, defaults, refusals) and the
result dictionaries. The text itself comes from ``generation.py``.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Optional

from .._names import refuse_unknown
from ..read.prompt import Prompt
from ..text.grammar import GrammarLike, grammar_of_response_format
from ..text.stream import check_stops
from .loop import Piece, Request, TokenLogprob
from .sampling import SamplingParams

Result = dict[str, Any]

_JSON_INSTEAD = 'ask for JSON with response_format={"type": "json_object", "schema": ...}'
_REFUSED = {
    "suffix": "lazygguf does not fill in the middle",
    "functions": f"lazygguf does not call functions; {_JSON_INSTEAD}",
    "function_call": "lazygguf does not call functions",
    "tools": f"lazygguf does not call tools; {_JSON_INSTEAD}",
    "tool_choice": "lazygguf does not call tools",
}
_SAMPLING = tuple(f.name for f in fields(SamplingParams) if f.name != "last_n")
_SHARED = ("max_tokens", "stop", "stream", "logprobs", "model", "grammar", "response_format")
_HOOKS = ("logits_processor", "stopping_criteria")
TEXT_OPTIONS = (*_SAMPLING, *_SHARED, *_HOOKS, "echo", "tfs_z")
CHAT_OPTIONS = (*_SAMPLING, *_SHARED, *_HOOKS, "top_logprobs", "tfs_z")
MAX_LOGPROBS = 1000


@dataclass(frozen=True)
class CompletionOptions:
    """Checked options of a completion.

    Attributes:
        sampling: how tokens are chosen.
        max_tokens: None is until the context is full.
        stops: texts that end the answer.
        stream: give chunks while the answer is made.
        n_logprobs: alternatives per token; None gives no log-probabilities.
        echo: put the prompt before the text.
        model: the name that results carry; None is the model's path.
        grammar: what the answer must match.
        hooks: the ``logits_processor`` and ``stopping_criteria`` callables as lists.
    """

    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: Optional[int] = None
    stops: list[str] = field(default_factory=list)
    stream: bool = False
    n_logprobs: Optional[int] = None
    echo: bool = False
    model: Optional[str] = None
    grammar: Optional[GrammarLike] = None
    hooks: dict[str, list[Any]] = field(default_factory=dict)

    @classmethod
    def of_text(cls, given: Mapping[str, Any]) -> CompletionOptions:
        """Options of ``create_completion``: ``max_tokens`` 16, ``temperature`` 0.8, ``logprobs`` a count.

        Raises:
            ValueError, TypeError: an unknown option, one that lazygguf does not have, or a value out of
                range.
        """
        options = _known({"max_tokens": 16, **given}, TEXT_OPTIONS)
        n_logprobs = options.get("logprobs")
        if n_logprobs is not None:
            n_logprobs = _count("logprobs", n_logprobs, MAX_LOGPROBS)
        if options.get("echo") and n_logprobs is not None:
            raise ValueError("echo together with logprobs is refused: a lazy read computes no logits of prompt tokens")
        return cls(n_logprobs=n_logprobs, echo=bool(options.get("echo")), **_shared(options))

    @classmethod
    def of_chat(cls, given: Mapping[str, Any]) -> CompletionOptions:
        """Options of ``create_chat_completion``: no token limit, ``temperature`` 0.2, ``logprobs`` true or
        false.

        Raises:
            ValueError, TypeError: an unknown option, one that lazygguf does not have, or a value out of
                range.
        """
        options = _known({"temperature": 0.2, **given}, CHAT_OPTIONS)
        top = options.get("top_logprobs")
        if top is not None and not options.get("logprobs"):
            raise ValueError("top_logprobs needs logprobs=True")
        n_logprobs = _count("top_logprobs", top or 0, MAX_LOGPROBS) if options.get("logprobs") else None
        return cls(n_logprobs=n_logprobs, **_shared(options))

    def request(self, prompt: Prompt, started: float, stops: Sequence[str] = ()) -> Request:
        """The generation these options ask for; ``stops`` end the answer too."""
        return Request(
            prompt,
            stops=[*self.stops, *stops],
            max_tokens=self.max_tokens,
            sampling=self.sampling,
            grammar=self.grammar,
            n_logprobs=self.n_logprobs,
            logits_processors=self.hooks.get("logits_processor", []),
            stopping_criteria=self.hooks.get("stopping_criteria", []),
            started=started,
        )


@dataclass(frozen=True)
class Envelope:
    """What all chunks of one completion share.

    Attributes:
        model: the name results carry.
        n_prompt: tokens of the prompt, for the usage.
        prompt: the prompt's text where it is echoed, else "".
        offset: characters of the prompt, where ``text_offset`` of log-probabilities begins.
    """

    model: str
    n_prompt: int
    prompt: str = ""
    offset: int = 0
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4()}")
    created: int = field(default_factory=lambda: int(time.time()))

    def wrap(self, kind: str, choice: Result) -> Result:
        """A result with one choice."""
        name = f"chat{self.id}" if kind.startswith("chat") else self.id
        return {"id": name, "object": kind, "created": self.created, "model": self.model, "choices": [choice]}

    def usage(self, n_completion: int) -> dict[str, int]:
        """OpenAI's token counts."""
        total = self.n_prompt + n_completion
        return {"prompt_tokens": self.n_prompt, "completion_tokens": n_completion, "total_tokens": total}


def text_result(envelope: Envelope, pieces: Iterator[Piece]) -> Result:
    """A whole ``text_completion``."""
    made = list(pieces)
    choice = {
        "text": envelope.prompt + "".join(piece.text for piece in made),
        "index": 0,
        "logprobs": text_logprobs(made, envelope.offset),
        "finish_reason": made[-1].finish_reason,
    }
    usage = envelope.usage(sum(piece.counts for piece in made))
    return {**envelope.wrap("text_completion", choice), "usage": usage}


def text_chunks(envelope: Envelope, pieces: Generator[Piece, None, None]) -> Generator[Result, None, None]:
    """A ``text_completion`` in chunks; the last one has a finish reason and no text."""

    def chunk(text: str, logprobs: Optional[Result] = None, finish_reason: Optional[str] = None) -> Result:
        choice = {"text": text, "index": 0, "logprobs": logprobs, "finish_reason": finish_reason}
        return envelope.wrap("text_completion", choice)

    offset = envelope.offset
    with contextlib.closing(pieces):
        if envelope.prompt:
            yield chunk(envelope.prompt)
        for piece in pieces:
            if piece.text or piece.logprob:
                yield chunk(piece.text, text_logprobs([piece], offset))
            offset += len(piece.text)
            if piece.finish_reason:
                yield chunk("", None, piece.finish_reason)


def chat_result(envelope: Envelope, pieces: Iterator[Piece]) -> Result:
    """A whole ``chat.completion``."""
    made = list(pieces)
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "".join(piece.text for piece in made)},
        "logprobs": chat_logprobs(made),
        "finish_reason": made[-1].finish_reason,
    }
    usage = envelope.usage(sum(piece.counts for piece in made))
    return {**envelope.wrap("chat.completion", choice), "usage": usage}


def chat_chunks(envelope: Envelope, pieces: Generator[Piece, None, None]) -> Generator[Result, None, None]:
    """A ``chat.completion`` in chunks: the role, the text, an empty delta with the finish reason."""

    def chunk(delta: Result, logprobs: Optional[Result] = None, finish_reason: Optional[str] = None) -> Result:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return envelope.wrap("chat.completion.chunk", choice)

    with contextlib.closing(pieces):
        for i, piece in enumerate(pieces):
            if i == 0:
                yield chunk({"role": "assistant"})
            if piece.text or piece.logprob:
                yield chunk({"content": piece.text}, chat_logprobs([piece]))
            if piece.finish_reason:
                yield chunk({}, None, piece.finish_reason)


def text_logprobs(pieces: list[Piece], offset: int) -> Optional[Result]:
    """Log-probabilities in the shape of text completions; None where none were asked for."""
    found: Result = {"tokens": [], "text_offset": [], "token_logprobs": [], "top_logprobs": []}
    for piece in pieces:
        if piece.logprob is not None:
            text = _text(piece.logprob.data)
            top = {_text(data): logprob for data, logprob in reversed(piece.logprob.top)}
            found["tokens"].append(text)
            found["text_offset"].append(offset)
            found["token_logprobs"].append(piece.logprob.logprob)
            found["top_logprobs"].append({**dict(reversed(list(top.items()))), text: piece.logprob.logprob})
        offset += len(piece.text)
    return found if found["tokens"] else None


def chat_logprobs(pieces: list[Piece]) -> Optional[Result]:
    """Log-probabilities in the shape of chat completions; None where none were asked for."""
    content = [_chat_logprob(piece.logprob) for piece in pieces if piece.logprob is not None]
    return {"content": content, "refusal": None} if content else None


def _chat_logprob(found: TokenLogprob) -> Result:
    top = [{"token": _text(data), "logprob": logprob, "bytes": list(data)} for data, logprob in found.top]
    return {
        "token": _text(found.data),
        "bytes": list(found.data),
        "logprob": found.logprob,
        "top_logprobs": top,
    }


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _known(given: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """The options without those that say nothing; unknown and unsupported ones are refused."""
    for name, reason in _REFUSED.items():
        if given.get(name) is not None:
            raise ValueError(f"{name} is not supported: {reason}")
    if given.get("tfs_z", 1.0) != 1.0:
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
    return {
        "sampling": SamplingParams(**sampling),
        "max_tokens": _max_tokens(options.get("max_tokens")),
        "stops": check_stops(options.get("stop")),
        "stream": bool(options.get("stream")),
        "model": options.get("model"),
        "grammar": grammar,
        "hooks": {name: _callables(name, options.get(name)) for name in _HOOKS},
    }


def _max_tokens(value: Any) -> Optional[int]:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"max_tokens is {value!r}, expected an integer, or None for no limit")
    return value if value > 0 else None


def _count(name: str, value: Any, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"{name} is {value!r}, expected an integer in [0, {most}]")
    return value


def _callables(name: str, value: Any) -> list[Any]:
    """One callable or a list of them (llama_cpp's lists are callable themselves)."""
    found = [] if value is None else [value] if callable(value) else list(value)
    if not all(callable(hook) for hook in found):
        raise TypeError(f"{name} holds something that cannot be called")
    return found
