"""``lazygguf bench`` on a tiny model, from the command line to what it prints."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from tiny_gguf import TinyConfig

from lazygguf.cli.main import EXIT_INTERRUPTED, main

pytest.importorskip("lazygguf.tools.bench.command", reason="lazygguf is not installed with its tools")

from lazygguf.tools.bench.contenders import LAZYGGUF, LLAMA_CPP, Contender
from lazygguf.tools.bench.engines import LazyEngine, LlamaCppEngine, Settings
from lazygguf.tools.bench.measuring import peak_bytes
from lazygguf.tools.bench.text import Script

TinyModel = Callable[[TinyConfig], tuple[Path, Any]]
QUICK = ("-n", "2", "-r", "2", "-t", "1", "--weights", "as-is", "--keep", "2:0.5", "--no-memory")
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture()
def path(tiny_model: TinyModel) -> str:
    return str(tiny_model(TinyConfig())[0])


def records(capsys: pytest.CaptureFixture[str], *args: str) -> list[dict[str, Any]]:
    assert main(["bench", *args, "--json"]) == 0
    return list(json.loads(capsys.readouterr().out))


def test_json_holds_every_row_and_the_work_that_a_schedule_does(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = records(capsys, "-m", path, "-p", "270,300", *QUICK)
    rows = [(r["engine"], r["keep"], r["test"]) for r in found]
    assert len(rows) == len(set(rows)) == 2 * 3 * 3
    assert [r["test"] for r in found[:3]] == ["pp270", "tg2 @ d270", "pp270+tg2"]
    lazy = next(r for r in found if r["keep"] == "2:0.5" and r["test"] == "pp300")
    assert lazy["tokens_computed_pct"] == pytest.approx(75.0, abs=0.5)  # 3 of 6 layers whole, 3 half
    assert lazy["ideal_speedup"] == pytest.approx(4 / 3, abs=0.01)
    assert lazy["reached"] == pytest.approx(lazy["ratio_dense"] / lazy["ideal_speedup"])
    assert len(lazy["samples_ns"]) == 2 and min(lazy["samples_ns"]) > 0
    assert lazy["model_n_params"] > 0 and lazy["model_size"] == 4 * lazy["model_n_params"]  # F32
    dense = next(r for r in found if (r["engine"], r["keep"], r["test"]) == (LAZYGGUF, "off", "pp300"))
    assert lazy["kv_bytes"] < dense["kv_bytes"] and dense["tokens_computed_pct"] == 100.0


def test_auto_prunes_since_the_prompt_asks_something(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    quick = [option for option in QUICK if option not in ("--keep", "2:0.5")]

    def share(*more: str) -> float:
        found = records(capsys, "-m", path, "-p", "400", *quick, *more)
        return float(next(r for r in found if r["keep"] == "auto")["tokens_computed_pct"])

    assert share() < 100.0 == share("--question", "")


def test_the_hash_shows_that_dense_is_llama_cpp_and_a_schedule_is_not(
    tiny_model: TinyModel, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tiny_model(TinyConfig.for_type("Q4_K"))[0])
    found = records(capsys, "-m", path, "-p", "300", *QUICK)
    theirs, dense, lazy = (r["logits_hash"] for r in found[::3])
    assert theirs == dense != lazy


def test_without_llama_cpp_only_our_rows_are_measured(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = records(capsys, "-m", path, "-p", "30", "--against", "none", *QUICK)
    assert {r["engine"] for r in found} == {LAZYGGUF}
    assert {r["ratio_llama_cpp"] for r in found} == {None}


def test_the_text_is_what_the_file_says(path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hashes = []
    for words in ("the cat sat on the mat. ", "it is as it was, or not? "):
        (tmp_path / "a.txt").write_text(words * 9, encoding="utf-8")
        found = records(capsys, "-m", path, "-p", "30", "-f", str(tmp_path / "a.txt"), *QUICK)
        assert found[0]["text"] == str(tmp_path / "a.txt")
        hashes.append(found[0]["logits_hash"])
    assert hashes[0] != hashes[1]


def test_markdown_and_jsonl_are_whole_on_stdout(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "-m", path, "-p", "30,40", *QUICK]
    assert main([*arguments, "-o", "md"]) == 0
    out, err = capsys.readouterr()
    tables = [block.splitlines() for block in out.strip().split("\n\n")[1:]]
    assert [len(table) for table in tables] == [2 + 6] * 3
    assert all(line.startswith("| ") and line.endswith(" |") for table in tables for line in (table[0], *table[2:]))
    assert [set(table[1]) for table in tables] == [set("|-")] * 3
    assert "done" in err and "done" not in out
    assert main([*arguments, "-o", "jsonl"]) == 0
    assert len([json.loads(line) for line in capsys.readouterr().out.splitlines()]) == 18


def test_a_note_says_that_a_prompt_is_longer_than_the_model_was_trained_for(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "-m", path, "-p", "520", "--against", "none", *QUICK]) == 0
    assert "522 tokens are above the 512 that the model was trained with" in capsys.readouterr().err


# ---- Ctrl-C


def interrupt_on_read(monkeypatch: pytest.MonkeyPatch, engine: type, n_prompt: int) -> None:
    """Ctrl-C comes when an engine reads a prompt of so many tokens."""
    read = engine.read  # type: ignore[attr-defined]

    def interrupted(self: Any, ids: Any, n_asked: int = 0) -> None:
        if len(ids) == n_prompt:
            signal.raise_signal(signal.SIGINT)
        read(self, ids, n_asked)

    monkeypatch.setattr(engine, "read", interrupted)


@pytest.mark.parametrize("engine", [LazyEngine, LlamaCppEngine])
def test_ctrl_c_prints_the_lengths_that_are_complete(
    engine: type, path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_on_read(monkeypatch, engine, 40)
    assert main(["bench", "-m", path, "-p", "30,40", *QUICK, "--json"]) == EXIT_INTERRUPTED
    out, err = capsys.readouterr()
    assert {record["test"] for record in json.loads(out)} == {"pp30", "tg2 @ d30", "pp30+tg2"}
    assert "these lengths are complete" in err


def test_ctrl_c_before_a_length_is_complete_prints_nothing(
    path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_on_read(monkeypatch, LazyEngine, 30)
    assert main(["bench", "-m", path, "-p", "30,40", *QUICK]) == EXIT_INTERRUPTED
    out, err = capsys.readouterr()
    assert out == "" and "before a prompt length was complete" in err


# ---- memory


def test_the_peak_is_of_a_process_of_its_own(path: str) -> None:
    fat = np.ones(100_000_000)  # 800 MB in this process, which the child's peak must not hold
    peak = peak_bytes(path, Contender(LAZYGGUF), Settings(1, 40), Script(list(range(3, 35)), 30))
    assert 30e6 < peak < fat.nbytes


def test_the_peak_grows_with_the_prompt(path: str) -> None:
    ids = [3 + i % 300 for i in range(5_000)]
    short, long = (peak_bytes(path, Contender(LLAMA_CPP), Settings(1, n), Script(ids[:n], n - 1)) for n in (40, 5_000))
    assert long - short > 5_000 * 6 * 2 * 32 * 2  # K and V, F16, of 6 layers of 2 heads of 16


def test_every_row_has_a_peak_unless_memory_is_left_out(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    quick = [option for option in QUICK if option != "--no-memory"]
    assert all(r["peak_bytes"] > 30e6 for r in records(capsys, "-m", path, "-p", "30", *quick))
    assert all(r["peak_bytes"] is None for r in records(capsys, "-m", path, "-p", "30", *QUICK))


def test_a_child_that_fails_says_why(path: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"memory of off failed: .*none\.gguf.*--no-memory skips it"):
        peak_bytes(str(tmp_path / "none.gguf"), Contender(LAZYGGUF), Settings(1, 40), Script([3, 4], 1))


# ---- plot


def test_a_plot_is_written_beside_the_table(path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="the extra [plot] is not installed")
    plot = tmp_path / "ttft.png"
    assert main(["bench", "-m", path, "-p", "30,60", *QUICK, "--plot", str(plot)]) == 0
    out, err = capsys.readouterr()
    assert plot.read_bytes().startswith(PNG)
    assert f"wrote {plot}" in err and "2:0.5" in out


# ---- drafts


@pytest.fixture()
def pair(tiny_model: TinyModel) -> tuple[str, str]:
    """A model and a draft of another vocabulary that is small enough for it."""
    large = tiny_model(TinyConfig(tokenizer="bpe", n_embd=128, n_ff=256))[0]
    return str(large), str(tiny_model(TinyConfig(n_embd=32, n_ff=32, n_layer=4))[0])


def test_a_schedule_before_layer_0_is_measured_with_its_draft(
    pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, draft = pair
    picture = tmp_path / "ttft.png"
    keeps = ("--keep", "-1:0.25;-1:0.5,2:0.25", "-n", "2", "-r", "1", "-t", "1", "--second-look", "0")
    found = records(capsys, "-m", model, "-md", draft, "-p", "400", *keeps, "--plot", str(picture))
    by_keep = {r["keep"]: r for r in found if r["engine"] == LAZYGGUF and r["test"] == "pp400"}
    lazy, both, dense = by_keep["-1:0.25"], by_keep["-1:0.5,2:0.25"], by_keep["off"]
    assert lazy["draft_filename"] == draft
    assert lazy["draft_ms"] > 0 and 0 < lazy["draft_pct"] < 25
    assert lazy["tokens_computed_pct"] == pytest.approx(25 + lazy["draft_pct"], abs=0.5)
    assert both["tokens_computed_pct"] == pytest.approx(37.5 + both["draft_pct"], abs=0.5)
    assert lazy["ideal_speedup"] == pytest.approx(100 / lazy["tokens_computed_pct"])
    assert (dense["draft_ms"], dense["draft_pct"], dense["tokens_computed_pct"]) == (0, 0, 100)
    assert lazy["peak_bytes"] > 0
    assert picture.read_bytes().startswith(PNG)
    assert main(["bench", "-m", model, "-md", draft, "-p", "300", *keeps, "--no-memory"]) == 0
    assert "draft share" in capsys.readouterr().out


def test_a_draft_that_would_not_run_is_refused(pair: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    model, draft = pair
    assert main(["bench", "-m", draft, "-md", draft, "-p", "300", "--keep", "-1:0.2"]) == 1
    assert "the model is 1.0 times as large as the draft, expected at least 3 times" in capsys.readouterr().err
    assert main(["bench", "-m", model, "-p", "300", "--keep", "-1:0.2"]) == 1
    assert "needs scores from outside: name a draft with -md" in capsys.readouterr().err
