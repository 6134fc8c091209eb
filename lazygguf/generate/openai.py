"""OpenAI-shaped completions, as ``llama_cpp`` gives them: the results' types, and how pieces of text become them.

The text itself comes from ``loop.py``, the options are ``options.py``'s.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, TypedDict

from .loop import Alternative, Piece, TokenLogprob


class Usage(TypedDict):
    """Tokens of a completion."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TextLogprobs(TypedDict):
    """Log-probabilities of a text completion, one entry for each token.

    Tokens are named as OpenAI does: by their text, and by ``bytes:\\xf0\\x9f`` where they are a part of a character.
    Where two tokens at one place have the same name, the less probable one is ``token_id:N``.
    """

    tokens: list[str]
    text_offset: list[int]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]


class TopLogprob(TypedDict):
    """A token's log-probability. ``bytes`` tell tokens apart that are parts of characters."""

    token: str
    logprob: float
    bytes: list[int]


class ChatLogprob(TopLogprob):
    """The same of the sampled token, with the most probable alternatives."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(TypedDict):
    """Log-probabilities of a chat completion, one entry for each token."""

    content: list[ChatLogprob]
    refusal: None


class ChatAnswer(TypedDict):
    """What the assistant says."""

    role: str
    content: str


class ChatDelta(TypedDict, total=False):
    """What a chunk adds: the role, some text, or nothing at the end."""

    role: str
    content: str


class _Choice(TypedDict):
    index: int
    finish_reason: Optional[str]  # "stop" or "length"; None in a chunk before the end


class TextChoice(_Choice):
    """The text, or in a chunk a part of it."""

    text: str
    logprobs: Optional[TextLogprobs]


class ChatChoice(_Choice):
    """An answer."""

    message: ChatAnswer
    logprobs: Optional[ChatLogprobs]


class ChatChunkChoice(_Choice):
    """A part of an answer."""

    delta: ChatDelta
    logprobs: Optional[ChatLogprobs]


class _Result(TypedDict):
    id: str
    object: str
    created: int
    model: str


class CompletionChunk(_Result):
    """A part of a text completion."""

    choices: list[TextChoice]


class Completion(CompletionChunk):
    """A text completion."""

    usage: Usage


class ChatCompletionChunk(_Result):
    """A part of a chat completion."""

    choices: list[ChatChunkChoice]


class ChatCompletion(_Result):
    """A chat completion."""

    choices: list[ChatChoice]
    usage: Usage


TextChunks = Generator[CompletionChunk, None, None]
ChatChunks = Generator[ChatCompletionChunk, None, None]


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

    def wrap(self, kind: str, choice: Any, pieces: Optional[Sequence[Piece]] = None) -> Any:
        """A result with one choice, and with OpenAI's token counts where all pieces are given."""
        name = f"chat{self.id}" if kind.startswith("chat") else self.id
        result = {"id": name, "object": kind, "created": self.created, "model": self.model, "choices": [choice]}
        if pieces is not None:
            n_said = sum(piece.counts for piece in pieces)
            total = self.n_prompt + n_said
            result["usage"] = {"prompt_tokens": self.n_prompt, "completion_tokens": n_said, "total_tokens": total}
        return result


def text_result(envelope: Envelope, pieces: Iterator[Piece]) -> Completion:
    """A whole ``text_completion``."""
    made = list(pieces)
    choice: TextChoice = {
        "text": envelope.prompt + "".join(piece.text for piece in made),
        "index": 0,
        "logprobs": text_logprobs(made, envelope.offset),
        "finish_reason": made[-1].finish_reason,
    }
    result: Completion = envelope.wrap("text_completion", choice, made)
    return result


def text_chunks(envelope: Envelope, pieces: Generator[Piece, None, None]) -> TextChunks:
    """A ``text_completion`` in chunks; the last one has a finish reason and no text."""

    def chunk(text: str, logprobs: Optional[TextLogprobs] = None, reason: Optional[str] = None) -> CompletionChunk:
        choice: TextChoice = {"text": text, "index": 0, "logprobs": logprobs, "finish_reason": reason}
        found: CompletionChunk = envelope.wrap("text_completion", choice)
        return found

    with contextlib.closing(pieces):
        if envelope.prompt:
            yield chunk(envelope.prompt)
        for piece in pieces:
            if piece.text or piece.logprobs:
                yield chunk(piece.text, text_logprobs([piece], envelope.offset))
            if piece.finish_reason:
                yield chunk("", None, piece.finish_reason)


def chat_result(envelope: Envelope, pieces: Iterator[Piece]) -> ChatCompletion:
    """A whole ``chat.completion``."""
    made = list(pieces)
    choice: ChatChoice = {
        "index": 0,
        "message": {"role": "assistant", "content": "".join(piece.text for piece in made)},
        "logprobs": chat_logprobs(made),
        "finish_reason": made[-1].finish_reason,
    }
    result: ChatCompletion = envelope.wrap("chat.completion", choice, made)
    return result


def chat_chunks(envelope: Envelope, pieces: Generator[Piece, None, None]) -> Generator[ChatCompletionChunk, None, None]:
    """A ``chat.completion`` in chunks: the role, the text, an empty delta with the finish reason."""

    def chunk(
        delta: ChatDelta, logprobs: Optional[ChatLogprobs] = None, reason: Optional[str] = None
    ) -> ChatCompletionChunk:
        choice: ChatChunkChoice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        found: ChatCompletionChunk = envelope.wrap("chat.completion.chunk", choice)
        return found

    with contextlib.closing(pieces):
        for i, piece in enumerate(pieces):
            if i == 0:
                yield chunk({"role": "assistant"})
            if piece.text or piece.logprobs:
                yield chunk({"content": piece.text}, chat_logprobs([piece]))
            if piece.finish_reason:
                yield chunk({}, None, piece.finish_reason)


def text_logprobs(pieces: list[Piece], offset: int) -> Optional[TextLogprobs]:
    """Log-probabilities in the shape of text completions; None where none were asked for."""
    found: TextLogprobs = {"tokens": [], "text_offset": [], "token_logprobs": [], "top_logprobs": []}
    for token in (token for piece in pieces for token in piece.logprobs):
        found["tokens"].append(_name(token.chosen.data))
        found["text_offset"].append(offset + token.offset)
        found["token_logprobs"].append(token.chosen.logprob)
        found["top_logprobs"].append(_by_name(token))
    return found if found["tokens"] else None


def chat_logprobs(pieces: list[Piece]) -> Optional[ChatLogprobs]:
    """Log-probabilities in the shape of chat completions; None where none were asked for."""
    content = [_chat_logprob(token) for piece in pieces for token in piece.logprobs]
    return {"content": content, "refusal": None} if content else None


def _chat_logprob(found: TokenLogprob) -> ChatLogprob:
    return {**_entry(found.chosen), "top_logprobs": [_entry(alternative) for alternative in found.top]}


def _entry(found: Alternative) -> TopLogprob:
    text = found.data.decode("utf-8", "replace")
    return {"token": text, "logprob": found.logprob, "bytes": list(found.data)}


def _by_name(found: TokenLogprob) -> dict[str, float]:
    """The most probable tokens and the chosen one, each with a name of its own."""
    chosen = found.chosen
    taken = {_name(chosen.data)}
    named: dict[str, float] = {}
    for alternative in found.top:
        name = _name(alternative.data)
        if alternative.token != chosen.token:
            name = f"token_id:{alternative.token}" if name in taken else name
        taken.add(name)
        named[name] = alternative.logprob
    return {**named, _name(chosen.data): chosen.logprob}


def _name(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
