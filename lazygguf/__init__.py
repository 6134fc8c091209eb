"""lazygguf: ask questions about long texts, and the model reads only what the answer needs.

Quantized Llama and Qwen models (GGUF) on ggml, with LazyLLM's dynamic token pruning (arXiv:2407.14057).

    from lazygguf import LazyModel

    with LazyModel("model.gguf") as model:
        answer = model.create_chat_completion([{"role": "user", "content": text + "\\n\\n" + question}])
        print(answer["choices"][0]["message"]["content"])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import (
    Cancelled,
    ContextFullError,
    LazyError,
    ModelFileError,
    SessionFileError,
    UnsupportedModelError,
)
from .read.sources import Source
from .read.stats import Stats
from .schedule.keep_schedule import KeepSchedule, PruningPoint

if TYPE_CHECKING:
    from .model.lazy_model import LazyModel

    __version__: str

__all__ = [
    "Cancelled",
    "ContextFullError",
    "KeepSchedule",
    "LazyError",
    "LazyModel",
    "ModelFileError",
    "PruningPoint",
    "SessionFileError",
    "Source",
    "Stats",
    "UnsupportedModelError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    # loaded when asked for: LazyModel brings ggml and llama.cpp, the version searches the installed packages
    if name == "LazyModel":
        return import_module(".model.lazy_model", __name__).LazyModel
    if name == "__version__":
        metadata = import_module("importlib.metadata")
        try:
            return metadata.version("lazygguf")
        except metadata.PackageNotFoundError:  # run from a source tree that is not installed
            return "0.0.0"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
