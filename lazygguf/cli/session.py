"""One conversation: its turns, its settings, and asking the model.

Owns the message list and what happens to it when an answer is stopped or fails. It writes through a
``Screen`` and knows nothing of the command line.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Optional, Protocol

from ..errors import Cancelled
from ..generate.openai import ChatChunks
from ..generate.options import ChatArguments, CompletionOptions
from ..read.stats import Stats
from ..text.grammar import grammar_of_schema
from .terminal import Screen, interrupt_cancels

if TYPE_CHECKING:
    from typing_extensions import Unpack

Message = dict[str, Any]

# what /set may change: its name there, the completion's option, the type
SETTINGS = {
    "temp": ("temperature", float),
    "top_k": ("top_k", int),
    "top_p": ("top_p", float),
    "min_p": ("min_p", float),
    "repeat_penalty": ("repeat_penalty", float),
    "seed": ("seed", int),
    "n_predict": ("max_tokens", int),
}


class ChatModel(Protocol):
    """What a conversation needs of a model (``LazyModel``)."""

    model_path: str
    progress_callback: Any
    skim_callback: Any

    @property
    def stats(self) -> Stats: ...
    def create_chat_completion(
        self, messages: Any, *, stream: Literal[True], **options: Unpack[ChatArguments]
    ) -> ChatChunks: ...
    def cancel(self) -> None: ...
    def reset(self) -> None: ...


@dataclass(frozen=True)
class Answer:
    """An answer and how it came about.

    Attributes:
        text: what the model said.
        finish_reason: ``"stop"`` or ``"length"``.
        model: the file.
        stats: of this answer.
    """

    text: str
    finish_reason: str
    model: str
    stats: Stats

    def to_dict(self) -> dict[str, Any]:
        """The form that ``--json`` prints."""
        return {
            "answer": self.text,
            "finish_reason": self.finish_reason,
            "model": self.model,
            "stats": self.stats.to_dict(),
        }


def make_settings(*, json_schema: Optional[str] = None, **options: Any) -> dict[str, Any]:
    """Completion options of a chat, checked.

    Args:
        json_schema: a schema that answers must match, as text.
        **options: options of ``create_chat_completion``.

    Raises:
        ValueError: a value is out of range.
    """
    if json_schema is not None:
        options["grammar"] = grammar_of_schema(json_schema)
    settings = {name: value for name, value in options.items() if value is not None}
    CompletionOptions.of_chat(settings)
    return settings


class ChatSession:
    """A conversation with a model.

    Attributes:
        messages: the turns, without the system prompt.
        system: the system prompt; None has none.
        settings: options of the next answer.
    """

    def __init__(
        self, model: ChatModel, screen: Screen, system: Optional[str], settings: dict[str, Any], quiet: bool = False
    ) -> None:
        self.messages: list[Message] = []
        self.system = system
        self.settings = settings
        self._model = model
        self._screen = screen
        self._quiet = quiet

    @property
    def stats(self) -> Stats:
        """Of the last answer."""
        return self._model.stats

    def ask(self, content: str) -> Answer:
        """Asks and shows the answer; both become turns of the conversation.

        Raises:
            KeyboardInterrupt: Ctrl-C. What was said so far stays a turn; where nothing was, the question goes
                too.
            Exception: what the model raises; the conversation is as before.
        """
        before = list(self.messages)
        self.messages.append({"role": "user", "content": content})
        return self._answer(before)

    def regenerate(self) -> Answer:
        """Answers the last question anew; the old answer comes back where there is no new one.

        Raises:
            ValueError: nothing was asked yet.
        """
        if not self.messages:
            raise ValueError("nothing was asked yet")
        before = list(self.messages)
        self.messages.pop()
        return self._answer(before)

    def clear(self) -> None:
        """Begins a new conversation; the system prompt stays."""
        self.messages.clear()
        self._model.reset()

    def set(self, name: str, value: str) -> None:
        """Changes one setting from its text.

        Raises:
            ValueError: the value does not fit.
        """
        option, kind = SETTINGS[name]
        try:
            changed = {**self.settings, option: kind(value)}
        except ValueError:
            raise ValueError(f"{name} is {value!r}, expected {'a number' if kind is float else 'an integer'}") from None
        self.settings = make_settings(**changed)

    def _answer(self, before: list[Message]) -> Answer:
        said: list[str] = []
        try:
            with interrupt_cancels(self._model.cancel):
                reason = self._stream(said)
        except BaseException as error:
            if any(said):
                self._end_turn("".join(said))
            else:
                self.messages = before
            if isinstance(error, Cancelled):  # Ctrl-C reached the native step before Python
                raise KeyboardInterrupt from error
            raise
        text = "".join(said)
        self._end_turn(text)
        if reason == "length" and not self._quiet:
            self._screen.note("(cut off: the limit of -n/--n-predict or of the context -c/--ctx-size is reached)")
        self._screen.footer(self._model.stats)
        return Answer(text, reason, self._model.model_path, self._model.stats)

    def _stream(self, said: list[str]) -> str:
        turns = ([{"role": "system", "content": self.system}] if self.system else []) + self.messages
        with self._screen.reading() as bar:
            self._model.progress_callback, self._model.skim_callback = bar.read, bar.draft
            chunks = self._model.create_chat_completion(turns, stream=True, **self.settings)
            first = next(chunks)  # comes when the prompt has been read
        self._model.progress_callback = self._model.skim_callback = None
        reason = "stop"
        with contextlib.closing(chunks):
            for chunk in itertools.chain([first], chunks):
                choice = chunk["choices"][0]
                said.append(choice["delta"].get("content") or "")
                if not self._quiet:
                    self._screen.answer(said[-1])
                reason = choice["finish_reason"] or reason
        return reason

    def _end_turn(self, text: str) -> None:
        self.messages.append({"role": "assistant", "content": text})
        if not self._quiet:
            self._screen.end_answer()
