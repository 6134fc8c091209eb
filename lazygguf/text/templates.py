"""From chat messages to a prompt, and where the question is in it.

Owns the model's chat template (rendered by ``bounded_template``), the checks around it, and the token span of the
last user turn's question, which asks at pruning points with ``n_query="question"``. Which
characters of the prompt a message said is ``said_text.py``'s, and what becomes a control token ``markup.py``'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import jinja2
import numpy as np
import numpy.typing as npt
from llama_cpp.llama_chat_format import (
    CHATML_CHAT_TEMPLATE,
    LLAMA3_INSTRUCT_CHAT_TEMPLATE,
    MISTRAL_INSTRUCT_CHAT_TEMPLATE,
    Jinja2ChatFormatter,
)

from ..read.prompt import Prompt, QuerySpan
from ..schedule.keep_schedule import MAX_QUERY
from .bounded_template import BoundedTemplate
from .markup import Markup
from .offsets import spans_of, tokens_over
from .said_text import end_of_question, said_spans, said_turn
from .tokenizer import Tokenizer, encode_text

MAX_MARKUP = 12  # tokens that a template writes between two turns; a longer run is a text, such as a system prompt
LONG_QUESTION_CHARS = 512  # a longer user turn is a document with a question at its end
RECENT_MESSAGES = 6
CHAT_FORMATS = {  # names that llama_cpp has for templates
    "chatml": CHATML_CHAT_TEMPLATE,
    "llama-3": LLAMA3_INSTRUCT_CHAT_TEMPLATE,
    "mistral-instruct": MISTRAL_INSTRUCT_CHAT_TEMPLATE,
}
TEMPLATE_KEY = "tokenizer.chat_template"


@dataclass(frozen=True)
class ChatPrompt:
    """A rendered chat.

    Attributes:
        text: the prompt as text.
        prompt: its tokens. Protected are the template's own, recent the newest short messages; none where they are not
            found.
        turns: the messages, their content as text.
    """

    text: str
    prompt: Prompt
    turns: Sequence[Mapping[str, Any]] = ()

    @property
    def ids(self) -> Sequence[int]:
        """The prompt's token ids."""
        return self.prompt.ids


class ChatTemplate:
    """The chat template of one model."""

    def __init__(self, tokenizer: Tokenizer, metadata: Mapping[str, Any], override: Optional[str] = None) -> None:
        """Never raises for a bad template in the model file: ``render`` does, so that the model stays usable.

        Args:
            tokenizer: the model's tokenizer.
            metadata: the model's metadata.
            override: a Jinja template that is used instead of the model's.

        Raises:
            ValueError: ``override`` is not a template.
        """
        self._tokenizer = tokenizer
        self._markup = Markup(tokenizer)
        self._bos = _token_text(tokenizer, tokenizer.token_bos())
        self._eos = _token_text(tokenizer, tokenizer.token_eos())
        self._source = override if override is not None else metadata.get(TEMPLATE_KEY)
        self._template: Optional[BoundedTemplate] = None
        if override is not None:
            self._compiled()

    def render(self, messages: Sequence[Mapping[str, Any]], parse_special: bool = False) -> ChatPrompt:
        """The prompt that asks the assistant to answer.

        Args:
            messages: ``{"role": ..., "content": ...}``, oldest first; content is text or a list of text
                parts.
            parse_special: the text of control tokens such as ``<|im_end|>`` in messages becomes those tokens; else it
                stays text, and only the template's own are control tokens.

        Raises:
            ValueError, TypeError: malformed messages, a model without a template, or one that cannot be rendered.
        """
        if not isinstance(messages, Iterable) or isinstance(messages, (str, bytes, Mapping)):
            raise TypeError(f'messages is {repr(messages)[:80]}, expected a list of {{"role": ..., "content": ...}}')
        turns = [_check_message(message) for message in messages]
        if not turns:
            raise ValueError("messages is empty, expected at least one message")
        asked = max((i for i, turn in enumerate(turns) if turn["role"] == "user"), default=None)
        text = self._render([said_turn(turn, asks=i == asked) for i, turn in enumerate(turns)])
        ids = self._markup.tokenize(encode_text(text), () if parse_special else _said_bytes(text))
        bos = self._tokenizer.token_bos()
        if self._tokenizer.add_bos and ids[:1] != [bos]:
            ids.insert(0, bos)
        pieces = [self._tokenizer.piece(token, special=True) for token in ids]
        n_asked = end_of_question(text)
        n_tail = len(encode_text(text[n_asked:])) if n_asked else 0
        question = "" if asked is None else last_question(turns[asked]["content"] or "")
        span = question_span(pieces, question, n_tail)
        said = [turn["content"] or "" for turn in turns]
        prompt = Prompt(ids, span, template_positions(pieces, said), recent_positions(pieces, said))
        return ChatPrompt(str.__str__(text), prompt, turns)

    def _render(self, turns: list[dict[str, Any]]) -> str:
        try:
            return self._compiled().render(self._values(turns))
        except _TemplateError:
            raise
        except Exception as error:  # whatever Jinja, the sandbox or the template's raise_exception raise
            raise ValueError(f"chat template cannot be rendered: {_say(error)}; {_WAY_OUT}") from error

    def _values(self, turns: list[dict[str, Any]]) -> dict[str, Any]:
        """The variables that templates expect, as llama_cpp sets them."""
        absent = dict.fromkeys(("functions", "function_call", "tools", "tool_choice"))
        return {
            **absent,
            "messages": turns,
            "bos_token": self._bos,
            "eos_token": self._eos,
            "add_generation_prompt": True,
            "raise_exception": _raise_exception,
            "strftime_now": Jinja2ChatFormatter.strftime_now,
        }

    def _compiled(self) -> BoundedTemplate:
        if self._template is None:
            self._template = _compile(self._source)
        return self._template


class _TemplateError(ValueError):
    """There is nothing to render."""


_WAY_OUT = "give another one with chat_template= (--chat-template)"


def template_source(chat_template: Optional[str], chat_format: Optional[str]) -> Optional[str]:
    """The template that a caller asks for; None is the model's own.

    Raises:
        ValueError: both are given.
    """
    if chat_format is not None and chat_template is not None:
        raise ValueError(f"chat_format is {chat_format!r} and chat_template is given too, expected one of them")
    return chat_template if chat_format is None else CHAT_FORMATS[chat_format]


def last_question(content: str) -> str:
    """The part of a user turn that asks: all of a short turn, else the text after its last blank line.

    Returns:
        "" where that part is the end of the document rather than a question: it is long, or a question stands before
        the document.
    """
    text = content.strip()
    if len(text) <= LONG_QUESTION_CHARS:
        return text
    lines = text.splitlines(keepends=True)
    blank = [i for i, line in enumerate(lines) if not line.strip()]
    if not blank:
        return ""
    first, last = "".join(lines[: blank[0]]).strip(), "".join(lines[blank[-1] :]).strip()
    asks_first = len(first) <= LONG_QUESTION_CHARS and first.endswith("?") and "?" not in last
    return "" if len(last) > LONG_QUESTION_CHARS or asks_first else last


def question_span(pieces: Sequence[bytes], question: str, n_tail: int = 0) -> QuerySpan:
    """Token positions [begin, end) of a question in a tokenized prompt.

    Args:
        pieces: the bytes of each token, control tokens as text.
        question: its text; the last place where it stands counts.
        n_tail: bytes at the prompt's end that cannot be part of it.

    Returns:
        At most the last 128 tokens of the question (what a pruning point can ask with); None where it is not
        found.
    """
    needle = encode_text(question)
    text = b"".join(pieces)
    begin = text.rfind(needle, 0, len(text) - n_tail) if needle else -1
    if begin < 0:
        return None
    first, last = tokens_over(spans_of(pieces), begin, begin + len(needle))
    return max(first, last - MAX_QUERY), last


def template_positions(pieces: Sequence[bytes], contents: Sequence[str]) -> tuple[int, ...]:
    """Positions of the tokens that a template wrote around what was said: none of their bytes is a turn's.

    A longer text of its own, such as a default system prompt, is not among them: it may be pruned like any other.

    Args:
        pieces: the bytes of each token, control tokens as text.
        contents: what each turn says, in the prompt's order.

    Returns:
        Ascending positions; none where a turn is not found as it was given.
    """
    said = _said(pieces, contents)
    if said is None:
        return ()
    is_said = np.zeros(len(pieces), bool)
    for first, last in said:
        is_said[first:last] = True
    return tuple(int(pos) for run in _runs(np.flatnonzero(~is_said)) if len(run) <= MAX_MARKUP for pos in run)


def recent_positions(pieces: Sequence[bytes], contents: Sequence[str]) -> tuple[int, ...]:
    """Positions of the newest messages that are short; arguments as ``template_positions``."""
    said = _said(pieces, contents) or []
    newest = list(zip(contents, said))[-RECENT_MESSAGES:]
    return tuple(pos for content, span in newest if len(content.strip()) <= LONG_QUESTION_CHARS for pos in range(*span))


def _said(pieces: Sequence[bytes], contents: Sequence[str]) -> Optional[list[tuple[int, int]]]:
    """Tokens [first, last) that share a byte with each turn; None where one is not found as it was given."""
    text, spans, end = b"".join(pieces), spans_of(pieces), 0
    said: list[tuple[int, int]] = []
    for content in contents:
        needle = encode_text(content.strip())
        begin = text.find(needle, end)
        if begin < 0:
            return None
        end = begin + len(needle)
        said.append(tokens_over(spans, begin, end))
    return said


def _said_bytes(text: str) -> list[tuple[int, int]]:
    """Bytes [begin, end) of a rendered text that messages said."""
    found, done, n_bytes = [], 0, 0
    for begin, end in said_spans(text):
        first = n_bytes + len(encode_text(text[done:begin]))
        n_bytes = first + len(encode_text(text[begin:end]))
        found.append((first, n_bytes))
        done = end
    return found


def _runs(positions: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Ascending positions, cut where one is missing."""
    return np.split(positions, np.flatnonzero(np.diff(positions) > 1) + 1)


def _raise_exception(message: Any) -> None:
    raise ValueError(message)


def _compile(source: Any) -> BoundedTemplate:
    if source is None:
        raise _TemplateError(f"the model file has no chat template; {_WAY_OUT}, or use create_completion")
    if not isinstance(source, str) or not source.strip():
        raise _TemplateError(f"chat template is empty or not text; {_WAY_OUT}")
    try:
        return BoundedTemplate(source)
    except jinja2.TemplateError as error:
        line = f" in line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise _TemplateError(f"chat template cannot be read{line}: {_say(error)}; {_WAY_OUT}") from error
    except RecursionError as error:
        raise _TemplateError(f"chat template cannot be read: it nests too deep; {_WAY_OUT}") from error
    except (SyntaxError, ValueError, OverflowError) as error:  # of the Python code that Jinja makes of it, or a number
        raise _TemplateError(f"chat template cannot be read: {_say(error)}; {_WAY_OUT}") from error


def _check_message(message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise ValueError(f'message is {str(message)[:80]!r}, expected {{"role": ..., "content": ...}}')
    content = message.get("content")
    if content is None and message["role"] == "user":
        raise ValueError("a user message has no content")
    if content is not None and not isinstance(content, (str, list, tuple)):
        raise TypeError(f"message content is {repr(content)[:80]}, expected text or a list of text parts")
    if content is not None and not isinstance(content, str):
        content = "".join(_part_text(part) for part in content)
    return {**message, "content": content}


def _part_text(part: Any) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise ValueError(
        f"message content has a part of type {kind!r}, expected only text: lazygguf reads no images or sound"
    )


def _token_text(tokenizer: Tokenizer, token: int) -> str:
    return tokenizer.piece(token, special=True).decode("utf-8", "replace") if token >= 0 else ""


def _say(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return text or type(error).__name__
