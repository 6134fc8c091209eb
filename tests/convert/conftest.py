"""Fixtures of the conversion tests: the tools as a command, and the real models."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

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


@pytest.fixture()
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small tmpfs needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)
