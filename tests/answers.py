"""Texts of ``LazyModel``, whole and in chunks."""

from __future__ import annotations

from typing import Any

from lazygguf import LazyModel

TEXT = "the cat sat on the mat and the dog ran to the door of the house " * 3


def greedy(model: LazyModel, prompt: Any = TEXT, **options: Any) -> str:
    result = model.create_completion(prompt, **{"temperature": 0, "max_tokens": 12, **options})
    return str(result["choices"][0]["text"])


def streamed(model: LazyModel, prompt: Any = TEXT, **options: Any) -> str:
    asked = {"temperature": 0, "max_tokens": 12, **options}
    return "".join(chunk["choices"][0]["text"] for chunk in model.create_completion(prompt, stream=True, **asked))
