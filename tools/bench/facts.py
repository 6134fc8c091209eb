"""What a benchmark ran on: the model, the machine, the versions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.metadata import version

import lazygguf
from lazygguf._ffi import NativeFile
from lazygguf.files.model_file import fingerprint, shipped_profile

from ..keep_options import ModelShape
from . import ggml_calls
from .contenders import LLAMA_CPP
from .engines import Settings


@dataclass(frozen=True)
class ModelFacts:
    """Of a GGUF file, without its weights.

    Attributes:
        path: the file.
        model_type: architecture, size and main type, such as "llama 6.74 B Q4_K".
        n_bytes: of all tensors.
        n_params: weights.
        n_vocab: tokens in the vocabulary.
        n_ctx_train: tokens of context it was trained with.
        shape: what schedules must fit.
    """

    path: str
    model_type: str
    n_bytes: int
    n_params: int
    n_vocab: int
    n_ctx_train: int
    shape: ModelShape


@dataclass(frozen=True)
class Machine:
    """The hardware and the library, named as llama-bench names them."""

    cpu_info: str
    gpu_info: str
    backends: str
    build_commit: str


def model_facts(path: str, has_draft: bool = False) -> ModelFacts:
    """Reads them.

    Args:
        path: the model.
        has_draft: a draft scores before layer 0 for it.

    Raises:
        LazyError, OSError: lazygguf does not run the file.
    """
    with NativeFile(path) as file:
        file.check()
        metadata, tensors = file.metadata, file.tensors
        shipped = shipped_profile(fingerprint(path, file))
    n_bytes = sum(tensor.n_bytes for tensor in tensors)
    n_params = sum(math.prod(tensor.ne) for tensor in tensors)
    arch = metadata["general.architecture"]
    by_type: dict[str, int] = {}
    for tensor in tensors:
        by_type[tensor.type_name] = by_type.get(tensor.type_name, 0) + tensor.n_bytes
    n_layer, n_head = (int(metadata[f"{arch}.{key}"]) for key in ("block_count", "attention.head_count"))
    return ModelFacts(
        path=path,
        model_type=f"{arch} {_shown_params(n_params)} {max(by_type, key=by_type.__getitem__)}",
        n_bytes=n_bytes,
        n_params=n_params,
        n_vocab=len(metadata["tokenizer.ggml.tokens"]),
        n_ctx_train=int(metadata[f"{arch}.context_length"]),
        shape=ModelShape(n_layer, n_head, metadata, shipped, has_draft),
    )


def machine() -> Machine:
    """This machine."""
    found = ggml_calls.devices()
    cpu, gpu = (", ".join(d.description for d in found if d.kind == kind) for kind in ("CPU", "GPU"))
    return Machine(cpu, gpu, ",".join(ggml_calls.backends()), ggml_calls.commit())


def engine_version(engine: str) -> str:
    """The version of a contender's engine."""
    return version("llama-cpp-python") if engine == LLAMA_CPP else lazygguf.__version__


def _shown_params(n: int) -> str:
    return f"{n / 1e9:.2f} B" if n >= 1e9 else f"{n / 1e6:.2f} M"


def describe(model: ModelFacts, machine: Machine, settings: Settings) -> str:
    """Model and machine in one line."""
    where = ", ".join(filter(None, (settings.device or machine.gpu_info, settings.rpc_servers)))
    placed = f"{settings.n_gpu_layers} layers on the GPU by {settings.placement}"
    gpu = f", {where}, {placed}" if settings.n_gpu_layers else ""
    return (
        f"{model.model_type}, {model.n_bytes / 2**20:,.0f} MiB; {settings.n_threads} threads of {machine.cpu_info}"
        f"{gpu}; n_ubatch {settings.n_ubatch}, flash attention, weights {settings.weights}"
    )
