"""One question of one task: what the runner asks and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Callable, Optional, Protocol

from .prompts import Prompt

KLD = "kld"


@dataclass(frozen=True)
class Question:
    """A prompt with what is expected.

    Attributes:
        task: the task's name.
        length: what the prompt's length is called in the table.
        index: number within the task.
        prompt: what is asked.
        references: the expected answers.
        score: of an answer, in [0, 1].
        continuation: of ``kld``, the tokens that follow the prompt; else None.
        depths: where the asked facts stand, in percent.
        extra: noted with the answer.
    """

    task: str
    length: str
    index: int
    prompt: Prompt
    references: Sequence[str]
    score: Callable[[str], float]
    continuation: Optional[tuple[int, ...]] = None
    depths: Sequence[int] = ()
    extra: dict[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """A task at one length."""

    @property
    def task(self) -> str: ...
    @property
    def n_questions(self) -> int: ...
    def question(self, index: int) -> Question: ...
