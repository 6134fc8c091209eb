"""A written file is read again, with the checks of the model loader."""

from __future__ import annotations

from pathlib import Path

from lazygguf.errors import LazyError, ModelFileError

from .payload import type_of
from .plan import ModelPlan


def check_input(path: Path) -> None:
    """Raises unless the loader would take the file as a model: container, keys, tensors, vocabulary."""
    from lazygguf._ffi import NativeFile

    with NativeFile(path) as file:
        file.check()


def check_written(path: Path, plan: ModelPlan, outtype: str) -> None:
    """Raises unless the file holds the plan and the loader takes it; a vocabulary file is not loaded."""
    from lazygguf._ffi import NativeFile

    try:
        with NativeFile(path) as file:
            found = [(t.name, _without_ones(t.ne), t.type_name) for t in file.tensors]
            n_tokens = len(file.metadata["tokenizer.ggml.tokens"])
            if plan.tensors:
                file.check()
    except LazyError as error:
        raise type(error)(
            f"the file just written does not pass the loader's check, so it was removed: {error}"
        ) from error
    planned = [(t.name, _without_ones(tuple(reversed(t.source.shape))), type_of(t, outtype).name) for t in plan.tensors]
    if found != planned or n_tokens != len(plan.vocab.tokens):
        odd = next((pair for pair in zip(found, planned) if pair[0] != pair[1]), (len(found), len(planned)))
        raise ModelFileError(f"the file just written differs from the plan: {odd[0]}, expected {odd[1]}")


def _without_ones(ne: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in ne if n != 1)
