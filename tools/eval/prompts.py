"""From a user turn to token ids, with the span of the question.

Owns the choice between the model's chat template and plain text, and where the question stands in either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from lazygguf.text.templates import TEMPLATE_KEY, ChatTemplate, last_question, question_span
from lazygguf.text.tokenizer import Tokenizer, encode_text


@dataclass(frozen=True)
class Prompt:
    """What a model is asked.

    Attributes:
        ids: token ids.
        query_span: positions [begin, end) of the question; None where there is none.
        max_tokens: most tokens of the answer.
        stops: texts that end the answer.
        min_tokens: tokens before which nothing ends the answer.
        protect: positions of the chat template's own tokens, which are never pruned.
    """

    ids: tuple[int, ...]
    query_span: Optional[tuple[int, int]]
    max_tokens: int
    stops: tuple[str, ...] = ()
    min_tokens: int = 0
    protect: tuple[int, ...] = ()

    @property
    def digest(self) -> str:
        """A hash of all that decides the answer."""
        content = repr((self.ids, self.query_span, self.max_tokens, self.stops, self.min_tokens, self.protect))
        return hashlib.sha256(content.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Wording:
    """How a prompt is put: inside the chat template or not, how the answer begins, and what asks in it.

    Attributes:
        chat: use the model's chat template, where it has one.
        answer_prefix: text after which the answer is to go on; "" is none.
        question: the question's text, where the template's own search (the text after the last blank line) would not
            find it; None leaves it to that.
    """

    chat: bool = True
    answer_prefix: str = ""
    question: Optional[str] = None


class Prompter:
    """Makes prompts for one model."""

    def __init__(self, tokenizer: Tokenizer, metadata: Mapping[str, Any]) -> None:
        self.tokenizer = tokenizer
        self.has_template = TEMPLATE_KEY in metadata
        self._template = ChatTemplate(tokenizer, metadata)

    def ids(self, content: str, wording: Wording) -> list[int]:
        """Token ids of a user turn."""
        return list(self.prompt(content, wording, 0).ids)

    def prompt(self, content: str, wording: Wording, max_tokens: int, **ends: Any) -> Prompt:
        """The prompt of a user turn; ``ends`` are ``stops`` and ``min_tokens`` of ``Prompt``."""
        protect: tuple[int, ...] = ()
        if wording.chat and self.has_template:
            rendered = self._template.render([{"role": "user", "content": content}]).prompt
            ids, span, protect = list(rendered.ids), rendered.query_span, tuple(rendered.protect)
            if wording.question is not None:
                span = self._span(ids, wording.question)
        else:
            ids = self.tokenizer.tokenize(encode_text(content), add_bos=True, special=True)
            span = self._span(ids, last_question(content) if wording.question is None else wording.question)
        if wording.answer_prefix:
            ids += self.tokenizer.tokenize(encode_text(wording.answer_prefix), add_bos=False, special=True)
        return Prompt(tuple(ids), span, max_tokens, protect=protect, **ends)

    def _span(self, ids: list[int], question: str) -> Optional[tuple[int, int]]:
        pieces = [self.tokenizer.piece(token, special=True) for token in ids]
        return question_span(pieces, question.strip())
