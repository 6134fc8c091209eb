"""Fixtures of the conversion tests: the tools as a command, and the real models."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

pytest.importorskip("lazygguf.tools.convert.command", reason="lazygguf is not installed with its tools")


def parse_and_run(module: str, *arguments: object) -> int:
    """Runs ``lazygguf.tools.<module>.command`` as the command line does, without catching its exceptions."""
    import importlib

    tool = importlib.import_module(f"lazygguf.tools.{module}.command")
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
