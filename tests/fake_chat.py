"""``lazygguf chat`` against a fake model: what was asked, and typed or piped input."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from lazygguf import Stats
from lazygguf.cli.main import main
from lazygguf.files.block_file import MAGIC

if TYPE_CHECKING:
    import pytest


class FakeModel:
    """Answers every chat with the same words and remembers what it was asked."""

    made: ClassVar[list[FakeModel]] = []
    answer: ClassVar[list[str]] = ["It is ", "42", "."]
    error: Optional[BaseException] = None

    def __init__(self, model_path: str, **options: Any) -> None:
        self.model_path = model_path
        self.options = options
        self.asked: list[list[dict[str, str]]] = []
        self.settings: list[dict[str, Any]] = []
        self.progress_callback: Any = None
        self.n_resets = 0
        self.saved: list[str] = []
        self.stats = Stats(n_prompt=1200, n_reused=200, ttft_s=1.5, n_decoded=3, decode_tps=20.0, token_share=0.5)
        FakeModel.made.append(self)

    def __enter__(self) -> FakeModel:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def create_chat_completion(self, messages: Any, **options: Any) -> Iterator[dict[str, Any]]:
        self.asked.append([dict(message) for message in messages])
        self.settings.append(options)
        return self._chunks()

    def _chunks(self) -> Iterator[dict[str, Any]]:
        def chunk(delta: dict[str, str], reason: Optional[str] = None) -> dict[str, Any]:
            return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

        if self.progress_callback is not None:
            self.progress_callback(512, 1000)
        yield chunk({"role": "assistant"})
        for word in self.answer:
            yield chunk({"content": word})
            if self.error is not None:
                raise self.error
        yield chunk({}, "stop")

    def reset(self) -> None:
        self.n_resets += 1

    def cancel(self) -> None:
        pass

    def save_session(self, path: str, *, extra: Any = None) -> None:
        Path(path).write_bytes(MAGIC + json.dumps(extra).encode())
        self.saved.append(path)

    def load_session(self, path: str) -> Any:
        return json.loads(Path(path).read_bytes()[len(MAGIC) :])


class Stdin:
    """Typed or piped input."""

    def __init__(self, text: str, tty: bool) -> None:
        self.tty = tty
        self.buffer = io.BytesIO(text.encode())
        self.lines = io.StringIO(text)

    def readline(self, limit: int = -1) -> str:
        return self.lines.readline(limit)

    def isatty(self) -> bool:
        return self.tty


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin("".join(f"{line}\n" for line in lines), tty=True))


def piped(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(text, tty=False))


def asked() -> list[dict[str, str]]:
    return FakeModel.made[-1].asked[-1]


def chat(*args: str) -> int:
    return main(["chat", "-m", "m.gguf", *args])
