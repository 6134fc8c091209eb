"""lazygguf: ask questions about long texts, and the model reads only what the answer needs.

Quantized GGUF models of the Llama family on ggml, with LazyLLM's dynamic token pruning (arXiv:2407.14057).

    from lazygguf import LazyModel

    with LazyModel("model.gguf") as model:
        answer = model.create_chat_completion([{"role": "user", "content": text + "\\n\\n" + question}])
        print(answer["choices"][0]["message"]["content"])
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from .errors import Cancelled, ContextFullError, LazyError, ModelFileError, UnsupportedModelError
from .read.stats import Stats
from .schedule.keep_schedule import KeepSchedule, PruningPoint

if TYPE_CHECKING:
    from .model.lazy_model import LazyModel

try:
    __version__ = version("lazygguf")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0.0.0"

__all__ = [
    "Cancelled",
    "ContextFullError",
    "KeepSchedule",
    "LazyError",
    "LazyModel",
    "ModelFileError",
    "PruningPoint",
    "Stats",
    "UnsupportedModelError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    # LazyModel loads ggml and llama.cpp: only a program that uses it pays for that
    if name == "LazyModel":
        return import_module(".model.lazy_model", __name__).LazyModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
