"""``lazygguf calibrate`` from the command line, on a tiny model whose every answer is called right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import pytest
from tiny_gguf import TinyConfig

pytest.importorskip("lazygguf.tools.calibrate", reason="lazygguf is not installed with its tools")

from lazygguf.tools.calibrate import probes
from lazygguf.tools.eval.engine import Reader

from lazygguf import KeepSchedule, LazyModel
from lazygguf.cli.main import main
from lazygguf.read.attention import AttentionReader

TinyModel = Callable[[TinyConfig], tuple[Path, Any]]
Run = Callable[..., tuple[int, str, str]]
SHORT = ("--length", "2500", "--samples", "2", "--minutes", "0.001", "-t", "1")


@pytest.fixture(scope="module")
def tiny(tiny_model: TinyModel) -> Path:
    return tiny_model(TinyConfig(n_ctx_train=4096))[0]


@pytest.fixture
def run(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(probes, "string_match_all", lambda pred, references: 1.0)
    monkeypatch.setattr(probes, "KINDS", {kind: probes.KINDS[kind] for kind in ("single", "source")})
    monkeypatch.setattr("lazygguf.tools.calibrate.trials.KINDS", probes.KINDS)
    monkeypatch.setattr("lazygguf.tools.calibrate.command.KINDS", probes.KINDS)
    monkeypatch.chdir(tmp_path)

    def call(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["calibrate", "-m", str(tiny), *args])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_a_calibration_writes_a_profile_with_its_figures_and_embeds_it(run: Run, tmp_path: Path, tiny: Path) -> None:
    code, out, err = run(*SHORT, "-o", "p.json", "--embed", "with.gguf", "--plot", "p.png")
    assert code == 0, err
    profile = json.loads(Path("p.json").read_text())
    schedule = KeepSchedule.from_dict(profile)
    schedule.validate(TinyConfig().n_layer, TinyConfig().n_head)
    assert schedule.decode_cached and schedule.dense_unasked
    notes = profile["measurements"]
    assert notes["quality"] == 1.0 and notes["share"] < 1.0
    assert len(notes["frontier"]) >= 3 and any(row["keep"].startswith("1:0.5") for row in notes["frontier"])
    (chosen,) = [line for line in out.splitlines() if line.startswith("*")]
    assert chosen.split()[-1] == f"{schedule.max_revive},{schedule.revive_margin:g},{schedule.mean_revive:g}"
    assert any(line.endswith("selected rows alone, plain text pruned") for line in out.splitlines())  # the paper's rule
    assert Path("p.png").read_bytes().startswith(b"\x89PNG")
    with LazyModel("with.gguf", n_ctx=512) as model, LazyModel(str(tiny), n_ctx=512, keep="off") as plain:
        assert model.schedule == schedule
        assert {k: v for k, v in model.metadata.items() if k != "lazygguf.profile"} == plain.metadata


def test_a_second_run_asks_nothing_again_and_says_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(*SHORT, "-o", "p.json")
    profile = Path("p.json").read_text()
    for reads, name in ((Reader, "answer"), (Reader, "follow"), (AttentionReader, "read")):
        monkeypatch.setattr(reads, name, None)  # would fail
    assert run(*SHORT, "-o", "p.json") == first
    assert Path("p.json").read_text() == profile


def test_a_target_that_nothing_holds_writes_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lazygguf.tools.calibrate.trials._ratio", lambda pairs: 0.5)
    code, out, err = run(*SHORT, "-o", "p.json")
    assert code == 1
    assert "no schedule holds the target" in err
    assert "0.500" in out
    assert not Path("p.json").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--target", "1.5"), "--target 1.5: expected a value above 0 up to 1"),
        (("--share", "0"), "--share 0: expected a value above 0 up to 1"),
        (("--minutes", "0"), "--minutes 0: expected a value above 0"),
        (("--samples", "1"), "--samples 1: expected 2 or more"),
        (("--length", "1000,200"), '--length "1000,200": expected 300 tokens or more'),
        (("--length", "long"), '--length "long": expected numbers of tokens'),
        (("-o", "no/p.json"), "no/p.json: the folder"),
        (("--plot", "p.jpg"), "--plot p.jpg: expected a name that ends in .png"),
    ],
    ids=str,
)
def test_what_cannot_work_is_said_before_anything_is_read(run: Run, args: tuple[str, ...], message: str) -> None:
    code, out, err = run(*args)
    assert (code, out) == (1, "")
    assert message in err
