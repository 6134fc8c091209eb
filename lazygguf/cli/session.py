"""One conversation: its turns, its settings, and asking the model.

Owns the message list and what happens to it when an answer is stopped or fails. It writes through a
``Screen`` and knows nothing of the command line.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Optional, Protocol

from ..errors import Cancelled
from ..files.atomic_file import check_replaceable
from ..files.block_file import MAGIC
from ..generate.openai import ChatChunks
from ..generate.options import ChatArguments, CompletionOptions
from ..read.sources import Source
from ..read.stats import Stats
from ..text.grammar import grammar_of_schema
from .document import NO_DOCUMENT, Document, FoundSource
from .terminal import Screen, interrupt_cancels

if TYPE_CHECKING:
    from typing_extensions import Unpack

Message = dict[str, Any]

_CHAT = "chat"  # under which name a saved session has the conversation

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
    def sources(self, n: int) -> list[Source]: ...
    def create_chat_completion(
        self, messages: Any, *, stream: Literal[True], **options: Unpack[ChatArguments]
    ) -> ChatChunks: ...
    def cancel(self) -> None: ...
    def reset(self) -> None: ...
    def save_session(self, path: str, *, extra: Any = None) -> None: ...
    def load_session(self, path: str) -> Any: ...


@dataclass(frozen=True)
class Answer:
    """An answer and how it came about.

    Attributes:
        text: what the model said.
        finish_reason: ``"stop"`` or ``"length"``.
        model: the file.
        stats: of this answer.
        sources: what it leaned on; None where nobody asked.
    """

    text: str
    finish_reason: str
    model: str
    stats: Stats
    sources: Optional[Sequence[FoundSource]] = None

    def to_dict(self) -> dict[str, Any]:
        """The form that ``--json`` prints."""
        found = {} if self.sources is None else {"sources": [source.to_dict() for source in self.sources]}
        return {
            "answer": self.text,
            "finish_reason": self.finish_reason,
            **found,
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


def _chat_of(extra: Any, path: str) -> dict[str, Any]:
    """The conversation that was saved beside a session, checked."""
    said = extra.get(_CHAT) if isinstance(extra, dict) else None
    system, messages = (said.get("system"), said.get("messages")) if isinstance(said, dict) else (None, None)
    is_right = isinstance(messages, list) and (system is None or isinstance(system, str))
    for message in messages if is_right and isinstance(messages, list) else ():
        is_right = is_right and isinstance(message, dict) and message.keys() == {"role", "content"}
        is_right = is_right and all(isinstance(text, str) for text in message.values())
    if not is_right:
        raise ValueError(f"{path}: the session was not saved by a chat: it holds no messages")
    return {"system": system, "messages": messages}


class ChatSession:
    """A conversation with a model.

    Attributes:
        messages: the turns, without the system prompt.
        system: the system prompt; None has none.
        settings: options of the next answer.
    """

    def __init__(
        self,
        model: ChatModel,
        screen: Screen,
        system: Optional[str],
        settings: dict[str, Any],
        quiet: bool = False,
        n_sources: int = 0,
    ) -> None:
        self.messages: list[Message] = []
        self.system = system
        self.settings = settings
        self._model = model
        self._screen = screen
        self._quiet = quiet
        self._n_sources = n_sources
        self._n_before = 0  # messages that the last answer's chat had before `messages`
        self._documents: dict[int, Document] = {}  # the files in a message, by its number in `messages`

    @property
    def stats(self) -> Stats:
        """Of the last answer."""
        return self._model.stats

    def ask(self, turn: Document) -> Answer:
        """Asks and shows the answer; both become turns of the conversation.

        Args:
            turn: what is asked, with the documents before the question.

        Raises:
            KeyboardInterrupt: Ctrl-C. What was said so far stays a turn; where nothing was, the question goes
                too.
            Exception: what the model raises; the conversation is as before.
        """
        before = list(self.messages)
        self._documents[len(before)] = turn
        self.messages.append({"role": "user", "content": turn.text})
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

    def sources(self, n: int) -> list[FoundSource]:
        """What the last answer leaned on, ``n`` passages at most.

        Raises:
            ValueError: nothing was answered yet, or ``n`` is below 1.
        """
        try:
            told = self._model.sources(n)
        except RuntimeError as error:
            raise ValueError("nothing was answered yet") from error
        return [self._found(source) for source in told]

    def _found(self, source: Source) -> FoundSource:
        at = (source.message or 0) - self._n_before
        document = self._documents.get(at, NO_DOCUMENT)
        is_same = at < len(self.messages) and document.text == self.messages[at]["content"]
        place = document.place(source.start, source.end) if is_same else None
        turn = sum(message["role"] == "user" for message in self.messages[: at + 1])
        return FoundSource(source, place, turn)

    def clear(self) -> None:
        """Begins a new conversation; the system prompt stays."""
        self.messages.clear()
        self._documents.clear()
        self._model.reset()

    def save(self, path: str) -> None:
        """Saves the conversation and what the model has read of it.

        Raises:
            OSError: it cannot be written; what was there stays.
        """
        self._model.save_session(path, extra={_CHAT: self._said()})

    def load(self, path: str) -> None:
        """Goes on with a saved conversation; its system prompt comes back too.

        Raises:
            OSError, LazyError: it cannot be read, or is of another model or other options; nothing changed.
            ValueError: it holds no conversation; this one goes on.
        """
        said = _chat_of(self._model.load_session(path), path)
        self.system, self.messages = said["system"], said["messages"]
        self._documents.clear()

    @contextlib.contextmanager
    def kept_in(self, path: Optional[str]) -> Iterator[None]:
        """Goes on with the conversation in a file, if it is there, and saves it at the end, whatever ends it.

        Args:
            path: None keeps nothing.

        Raises:
            OSError: nothing can be saved under this name; said before anything is asked.
        """
        if path is None:
            yield
            return
        check_replaceable(path, MAGIC)
        system, before = self.system, None
        if os.path.exists(path):
            self.load(path)
            before = copy.deepcopy(self._said())
            self.system = self.system if system is None else system
            n_turns = len(self.messages)
            self._screen.note(f"{path}: the conversation goes on after {n_turns} message{'s' * (n_turns != 1)}")
        try:
            yield
        finally:
            if self.messages and self._said() != before:
                self.save(path)

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

    def _said(self) -> dict[str, Any]:
        return {"system": self.system, "messages": self.messages}

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
        sources = self.sources(self._n_sources) if self._n_sources else None
        if sources is not None and not self._quiet:
            self._screen.sources(sources)
        self._screen.footer(self._model.stats)
        return Answer(text, reason, self._model.model_path, self._model.stats, sources)

    def _stream(self, said: list[str]) -> str:
        before = [{"role": "system", "content": self.system}] if self.system else []
        self._n_before, turns = len(before), before + self.messages
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
