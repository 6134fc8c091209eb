"""How a draft's scoring is found: the search on made-up recordings, and the commands on tiny models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from tiny_gguf import TinyConfig

pytest.importorskip("lazygguf.tools.calibrate", reason="lazygguf is not installed with its tools")

from lazygguf.tools.calibrate import probes
from lazygguf.tools.calibrate.drafts import by_depth, choose, needed, scores
from lazygguf.tools.calibrate.recording import BY_QUERY, Recording

from lazygguf import KeepSchedule, LazyModel
from lazygguf.cli.main import main
from lazygguf.draft.draft import Draft
from lazygguf.read.attention import AttentionReader
from lazygguf.schedule.scoring import ScoringProfile, resolve_scoring

TinyModel = Callable[[TinyConfig], tuple[Path, Any]]
N_LAYER, N_QUERY, N_TOKENS = 10, 12, 200
SEEING, ASKING = 4, 3  # the only layer, and the only token of the question, that finds the place
SHORT = ("--length", "2500", "--samples", "2", "-t", "1")


def made_up(seed: int) -> Recording:
    """A recording whose layer SEEING attends to the words before the evidence."""
    rng = np.random.default_rng(seed)
    rows = rng.random((N_LAYER, N_QUERY, N_TOKENS)) * 0.01
    place = int(rng.integers(20, 150))
    rows[SEEING, ASKING, place : place + 3] = 0.05
    evidence = ((place + 8, place + 9),)
    return Recording(f"g{seed}", "single", (0, 1, 198, 199), evidence, {BY_QUERY: rows.astype(np.float16)})


RECORDINGS = [made_up(seed) for seed in range(8)]


def test_the_layer_that_sees_is_found_and_the_draft_reads_no_further() -> None:
    found = list(by_depth(RECORDINGS))
    assert [each.profile.n_layer for each in found] == list(range(3, 9))
    chosen = choose(found)
    assert chosen.profile.n_layer == SEEING + 1 and SEEING in chosen.profile.layers
    assert chosen.needed.max() < 0.2
    fresh = [made_up(seed) for seed in range(50, 58)]
    assert needed(fresh, chosen.profile).mean() < 0.2
    assert needed(fresh, ScoringProfile((2,))).mean() > 0.4


def test_a_recording_scores_as_a_draft_does(tiny_model: TinyModel) -> None:
    path = str(tiny_model(TinyConfig(n_ctx_train=2048, tokenizer="bpe"))[0])
    profile = ScoringProfile((1, 2), n_query=8, over_query="max", pool=(3, 1))
    with LazyModel(path, keep="off", n_threads=1) as model:
        ids = model.tokenize(b"the cat sat on the mat and the dog ran to the door of the house. " * 12)
        span = (len(ids) - 12, len(ids))
        draft = Draft(model.as_draft(profile), model._tokenizer)
        expected = draft.score(ids, span).scores
        draft.close()
        with AttentionReader(model._parts.weights, n_ctx=2048) as reader:
            rows = reader.read(ids, span, by_query=True).astype(np.float16)
    recording = Recording("", "", (), ((5,),), {BY_QUERY: rows})
    assert scores(recording, profile) == pytest.approx(expected, rel=5e-3, abs=1e-6)


@pytest.fixture
def small(tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    few = {kind: probes.KINDS[kind] for kind in ("single", "source")}
    monkeypatch.setattr(probes, "KINDS", few)
    for module in ("trials", "command"):
        monkeypatch.setattr(f"lazygguf.tools.calibrate.{module}.KINDS", few)
    monkeypatch.setattr("lazygguf.tools.calibrate.drafts.DRAFT_KINDS", tuple(few))
    monkeypatch.chdir(tmp_path)
    return str(tiny_model(TinyConfig(n_ctx_train=4096, n_embd=32, n_ff=32, n_layer=6, seed=5))[0])


def test_scoring_writes_a_profile_that_a_draft_takes_and_embeds_it(
    small: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("calibrate", "-m", small, "--scoring", *SHORT, "-o", "s.json", "--embed", "with.gguf")
    assert main(list(asked)) == 0
    out = capsys.readouterr().out
    assert sum(line.startswith("*") for line in out.splitlines()) == 1
    profile = ScoringProfile.from_json(Path("s.json").read_text())
    notes = json.loads(Path("s.json").read_text())["measurements"]
    assert 0 < notes["needed_mean"] <= notes["needed_max"] <= 1 and notes["fresh"]["n"] == 4
    with LazyModel("with.gguf", n_ctx=512) as model:
        assert resolve_scoring(None, model.metadata, None) == profile
        assert model.as_draft().profile == profile
    monkeypatch.setattr(AttentionReader, "read", None)  # a second run reads nothing again
    assert main([*asked, "--force"]) == 0
    assert capsys.readouterr().out == out


def test_with_a_draft_it_is_tried_how_little_the_model_may_read(
    small: str, tiny_model: TinyModel, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "string_match_all", lambda pred, references: 1.0)
    target = str(tiny_model(TinyConfig(n_ctx_train=4096, n_embd=128, n_ff=256, tokenizer="bpe"))[0])
    asked = ["calibrate", "-m", target, "-md", small, *SHORT, "--minutes", "0.001", "-o", "p.json", "--plot", "p.png"]
    assert main(asked) == 0
    captured = capsys.readouterr()
    assert f"--keep p.json -md {small}" in captured.err
    schedule = KeepSchedule.from_json(Path("p.json").read_text())
    assert schedule.entry is not None and schedule.dense_unasked
    frontier = json.loads(Path("p.json").read_text())["measurements"]["frontier"]
    shares = {row["keep"]: row["share"] for row in frontier}
    assert shares["-1:0.05"] < shares["-1:0.2"] < shares["-1:0.45"] < 1
    assert str(schedule) == "-1:0.05"  # every answer is called right: the cheapest holds
    assert Path("p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--scoring", "--target", "0.9"), "--target is for schedules, --scoring finds none"),
        (("--scoring", "--plot", "a.png"), "--plot is for schedules"),
        (("--scoring", "-md", "x.gguf"), "-md is for schedules"),
        (("-md", "x.gguf", "--embed", "y.gguf"), "--embed: a schedule that needs a draft"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused(
    small: str, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], message: str
) -> None:
    assert main(["calibrate", "-m", small, *args]) == 2
    assert message in capsys.readouterr().err
