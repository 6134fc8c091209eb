"""The draft of ``lazygguf chat``: named, found, and told of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_chat import FakeModel
from gguf import GGUFValueType
from tiny_gguf import Kv, TinyConfig, write_tiny_gguf

from lazygguf import Stats
from lazygguf.cli.demo import demo_draft
from lazygguf.cli.main import main
from lazygguf.cli.terminal import describe
from lazygguf.files.model_file import ModelFile
from lazygguf.schedule.keep_schedule import PROFILE_KEY


def draft_of(monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    assert main(["chat", "-m", "model.gguf", "-p", "hi", *words]) == 0
    return FakeModel.made[-1].options["draft"]


def test_a_draft_is_named_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert draft_of(monkeypatch, "-md", "small.gguf") == "small.gguf"
    assert draft_of(monkeypatch, "-md", "none") is None
    assert draft_of(monkeypatch, "-md", "x.gguf", "--second-look", "0", "--headings", "#+ ") == "x.gguf"
    assert FakeModel.made[-1].options["second_look"] == 0.0
    assert FakeModel.made[-1].options["headings"] == "#+ "


def test_a_schedule_may_begin_before_layer_0(monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["chat", "-m", "model.gguf", "-p", "hi", "--keep", "-1:0.2,13:0.08"]) == 0
    assert FakeModel.made[-1].options["keep"] == "-1:0.2,13:0.08"


def test_the_demo_model_is_the_draft_of_a_model_three_times_as_large(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    demo, large, middle, tuned = (tmp_path / f"{name}.gguf" for name in ("demo", "large", "middle", "tuned"))
    write_tiny_gguf(demo, TinyConfig(n_embd=32, n_ff=32, n_layer=2))
    write_tiny_gguf(large, TinyConfig(n_embd=128, n_ff=256))
    write_tiny_gguf(middle, TinyConfig(n_embd=32, n_ff=64, n_layer=3))
    profile = {PROFILE_KEY: Kv('{"points": [{"il": 3, "keep": 0.5}]}', GGUFValueType.STRING)}
    write_tiny_gguf(tuned, TinyConfig(n_embd=128, n_ff=256), overrides=lambda kv, tensors: kv.update(profile))
    monkeypatch.setattr("lazygguf.cli.demo.demo_model", lambda: demo)
    assert demo_draft(str(large), "auto") == str(demo)
    assert demo_draft(str(large), "3:0.5") is None  # somebody chose
    assert demo_draft(str(middle), "auto") is None
    assert demo_draft(str(demo), "auto") is None
    assert demo_draft(str(tuned), "auto") is None  # the model brings its own schedule
    assert demo_draft(str(tmp_path / "none.gguf"), "auto") is None  # who opens it says so
    with monkeypatch.context() as patch:
        patch.setattr(ModelFile, "shipped", property(lambda file: {"points": []}))
        assert demo_draft(str(large), "auto") is None  # a profile ships for it
    monkeypatch.setattr("lazygguf.cli.demo.demo_model", lambda: None)
    assert demo_draft(str(large), "auto") is None


def test_the_footer_tells_what_the_draft_did() -> None:
    stats = Stats(n_prompt=1000, token_share=0.25, n_draft=1100, draft_s=1.5, skim_share=0.75, second_look=50)
    assert "75% only skimmed in 1.50 s, 50 on a second look" in describe(stats)
    assert "skimmed" not in describe(Stats(n_prompt=1000))
