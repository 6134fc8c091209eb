"""Every test of the command line runs against the fake model."""

from __future__ import annotations

import sys

import pytest
from fake_chat import FakeModel, Stdin

import lazygguf.cli.chat


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeModel.made.clear()
    monkeypatch.setattr(FakeModel, "error", None)
    monkeypatch.setattr(lazygguf.cli.chat, "LazyModel", FakeModel)
    monkeypatch.setattr(sys, "stdin", Stdin("", tty=False))
