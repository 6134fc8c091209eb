"""``lazygguf eval`` from the command line: on a tiny model, what is printed and how it ends; and on a real one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import pytest
from tiny_gguf import TinyConfig

pytest.importorskip("lazygguf.tools.eval", reason="lazygguf is not installed with its tools")

from lazygguf.tools import plot_file
from lazygguf.tools.eval import longbench, tasks
from lazygguf.tools.eval.engine import Reader

from lazygguf import KeepSchedule, PruningPoint
from lazygguf.cli.main import main

TinyModel = Callable[[TinyConfig], tuple[Path, Any]]
LENGTH = "1500"


@pytest.fixture(scope="module")
def tiny(tiny_model: TinyModel) -> str:
    return str(tiny_model(TinyConfig(n_ctx_train=4096))[0])


@pytest.fixture
def run(tiny: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*args: str, model: str = tiny) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["eval", "-m", model, "-t", "1", *args])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


Run = Callable[..., tuple[int, str, str]]


def test_a_run_prints_a_row_for_each_task_length_and_method(run: Run) -> None:
    code, out, err = run(
        *("--tasks", "niah_single,qa,kld", "--length", "1500,1600", "--samples", "1"),
        *("--keep", "1:0.4,3:0.2;2:0.5", "--baselines", "dense,random,recent,static,paper"),
    )
    assert (code, err) == (0, "")
    labels = ["dense", "1:0.4,3:0.2", "2:0.5", "random 0.53", "recent 0.53", "static 0:0.44", "paper 1:0.5,3:0.25"]
    scored, divergence = out.split("\n\n")
    for task in ("niah_single", "qa"):
        for length in ("1500", "1600"):
            rows = [line for line in scored.splitlines() if line.split()[:2] == [task, length]]
            assert [label for label, row in zip(labels, rows) if f" {label} " in row] == labels
    assert sum(line.startswith("all ") for line in scored.splitlines()) == len(labels)
    assert len(divergence.splitlines()) == 1 + 2 * len(labels)


def test_json_holds_the_methods_and_the_rows(run: Run) -> None:
    code, out, _ = run("--tasks", "qa", "--length", LENGTH, "--samples", "2", "--keep", "2:0.5", "--json")
    report = json.loads(out)
    assert code == 0
    assert [row["method"] for row in report["rows"]] == ["dense", "2:0.5"]
    assert [row["n"] for row in report["rows"]] == [2, 2]
    assert report["rows"][1]["token_share"] == pytest.approx(0.75, abs=0.02)
    assert report["methods"][1]["promised_share"] == 0.75
    assert report["settings"]["n_threads"] == 1


def test_baselines_beside_an_adaptive_schedule_read_what_it_reads_and_not_what_it_may(run: Run, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    schedule = KeepSchedule((PruningPoint(1, 0.9, mass=0.5, keep_min=0.2),), min_prompt=0)
    profile.write_text(schedule.to_json(), encoding="utf-8")
    asked = ("--tasks", "niah_single,qa", "--length", LENGTH, "--samples", "1", "--keep", str(profile))
    code, out, err = run(*asked, "--baselines", "dense,random,static", "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    shares = {row["method"].split()[0]: row["token_share"] for row in report["rows"] if row["task"] == "all"}
    adaptive = shares.pop(str(profile))
    assert 0.4 < adaptive < 0.9 < report["methods"][1]["promised_share"]
    assert shares["random"] == pytest.approx(adaptive, abs=0.01)
    assert shares["static"] == pytest.approx(adaptive, abs=0.01)


def test_a_second_run_in_the_same_folder_asks_nothing_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("--tasks", "qa,kld", "--length", LENGTH, "--samples", "2", "--out", str(tmp_path))
    first = run(*asked)
    monkeypatch.setattr(Reader, "answer", None)  # would fail
    monkeypatch.setattr(Reader, "follow", None)
    assert run(*asked) == first
    (file,) = tmp_path.iterdir()
    assert len(file.read_text(encoding="utf-8").splitlines()) == 4


def test_ctrl_c_ends_with_130_and_the_table_of_what_is_there(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, n_asked = Reader.answer, 0

    def answer(self: Reader, prompt: Any) -> Any:
        nonlocal n_asked
        n_asked += 1
        if n_asked == 3:
            raise KeyboardInterrupt
        return whole(self, prompt)

    monkeypatch.setattr(Reader, "answer", answer)
    code, out, _ = run("--tasks", "qa", "--length", LENGTH, "--samples", "5", "--out", str(tmp_path), "--json")
    assert code == 130
    assert [row["n"] for row in json.loads(out)["rows"]] == [2]
    n_asked = 10
    code, out, _ = run("--tasks", "qa", "--length", LENGTH, "--samples", "5", "--out", str(tmp_path), "--json")
    assert (code, n_asked) == (0, 13)
    assert [row["n"] for row in json.loads(out)["rows"]] == [5]


def test_longbench_files_are_run(run: Run, tmp_path: Path) -> None:
    line = {"input": "Who?", "context": "By Ada. " * 900, "answers": ["Ada"], "length": 1800, "all_classes": None}
    (tmp_path / "hotpotqa.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    (tmp_path / "hotpotqa_e.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    code, out, _ = run("--longbench", str(tmp_path), "--max-length", "1000", "--json")
    rows = json.loads(out)["rows"]
    assert code == 0
    assert [(row["task"], row["length"]) for row in rows] == [("hotpotqa", ""), ("hotpotqa_e", "0-4k"), ("all", "")]


def test_a_picture_is_drawn(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="the extra [plot] is not installed")
    monkeypatch.setitem(tasks.GENERATED, "qa", replace(tasks.GENERATED["qa"], score=lambda pred, references: 0.5))
    path = tmp_path / "quality.png"
    code, _, err = run("--tasks", "qa", "--length", LENGTH, "--samples", "2", "--keep", "2:0.5", "--plot", str(path))
    assert (code, err) == (0, "")
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "args, code, message",
    [
        (["--tasks", "niah_singel"], 1, "unknown task 'niah_singel', did you mean 'niah_single'?"),
        (["--baselines", "dense,newest"], 1, "unknown baseline 'newest'"),
        (["--length", "10k"], 1, '--length "10k": expected numbers of tokens such as "1000,2000"'),
        (["--samples", "0"], 1, "--samples 0: expected 1 or more"),
        (["--baseline-share", "1.5"], 1, "--baseline-share 1.5: expected a value between 0 and 1"),
        (["--tasks", "hotpotqa"], 2, "task hotpotqa is LongBench's: give the folder of its files with --longbench DIR"),
        (["--longbench", "missing"], 1, "--longbench missing: no such folder"),
        (["--tasks", "kld", "--baselines", "recent"], 2, "task kld compares with the dense run: add dense"),
        (["--reworded", "--tasks", "cwe"], 2, "--reworded: task cwe has no other words; those that have: niah_single"),
        (["--baselines", "", "--tasks", "qa"], 2, "nothing to compare: give --keep or --baselines"),
        (["--plot", "a.png", "--tasks", "kld"], 2, "--plot shows scores and times against dense"),
        (["--plot", "a.txt"], 1, "--plot a.txt: expected a name that ends in .png"),
        (["--pool", "7", "--keep", "auto"], 2, "--pool is for schedules spelled with --keep"),
        (["--keep", "40:0.5"], 1, "il is 40, expected at most 4"),
        (["--length", "4000", "--tasks", "qa"], 0, ""),
        (
            ["--length", "4096", "--tasks", "qa"],
            1,
            "--length 4096, task qa: 4096 tokens and 32 of the answer are 4128, the context holds 4096 (-c)",
        ),
        (["--length", "50", "--tasks", "vt"], 1, "--length 50, task vt: 50 tokens are too few, expected at least"),
        (["-f", "missing.txt"], 1, "missing.txt: No such file or directory"),
    ],
)
def test_what_cannot_work_is_one_line_before_anything_is_asked(
    run: Run, monkeypatch: pytest.MonkeyPatch, args: list[str], code: int, message: str
) -> None:
    if code:
        monkeypatch.setattr(Reader, "answer", None)  # would fail in another way
    got, _, err = run(*args, *([] if code else ["--samples", "1"]))
    assert got == code
    assert message in err and err.count("\n") == (1 if code else 0)


def test_a_longbench_prompt_that_does_not_fit_is_refused_before_the_run(run: Run, tmp_path: Path) -> None:
    line = {"input": "Who?", "context": "By Ada. " * 900, "answers": ["Ada"], "length": 1800}
    (tmp_path / "hotpotqa.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    code, _, err = run("--longbench", str(tmp_path), "--max-length", "4090")
    assert code == 1
    assert "--max-length 4090, task hotpotqa: prompt 0 and its answer take" in err
    assert "the context holds 4096" in err


def test_missing_libraries_are_said_before_the_run(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gov_report.jsonl").touch()
    monkeypatch.setattr(longbench, "find_spec", lambda name: None)
    code, _, err = run("--longbench", str(tmp_path))
    assert (code, err) == (1, "lazygguf: error: rouge is not installed: pip install 'lazygguf[eval]'\n")
    monkeypatch.setattr(plot_file, "find_spec", lambda name: None)
    code, _, err = run("--plot", str(tmp_path / "a.png"))
    assert (code, err) == (1, "lazygguf: error: --plot needs matplotlib: pip install 'lazygguf[plot]'\n")


@pytest.mark.model
def test_a_small_model_finds_a_needle_and_loses_it_when_everything_around_is_drawn_at_random(
    run: Run, smollm2_path: Path
) -> None:
    code, out, _ = run(
        *("--tasks", "niah_single", "--length", "600", "--samples", "3"),
        *("--baselines", "dense,random", "--baseline-share", "0.3", "--json"),
        model=str(smollm2_path),
    )
    rows = {row["method"]: row for row in json.loads(out)["rows"]}
    assert code == 0
    assert rows["dense"]["score"] == 1.0
    assert rows["random 0.3"]["score"] == 0.0
    assert rows["random 0.3"]["token_share"] == pytest.approx(0.3, abs=0.01)


def test_a_draft_chooses_what_a_schedule_before_layer_0_reads(tiny_model: TinyModel, run: Run, tmp_path: Path) -> None:
    model = str(tiny_model(TinyConfig(n_ctx_train=4096, n_embd=128, n_ff=256, tokenizer="bpe"))[0])
    draft = str(tiny_model(TinyConfig(n_ctx_train=4096, n_embd=32, n_ff=32, n_layer=4))[0])
    words = ("--tasks", "qa", "--length", LENGTH, "--samples", "1", "--keep", "-1:0.25", "--out", str(tmp_path))
    code, out, err = run(*words, "-md", draft, "--second-look", "0", "--json", model=model)
    assert (code, err) == (0, "")
    (dense, lazy) = json.loads(out)["rows"]
    assert lazy["method"] == "-1:0.25" and 0.25 < lazy["token_share"] < 0.5 < dense["token_share"]
    lines = [json.loads(line) for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    record = next(line for line in lines if line["method"] == "-1:0.25")
    assert record["draft_s"] > 0 and record["second_look"] == 0
    assert record["kept"] == [record["n_prompt"] // 4]
    run(*words, "-md", draft, "--second-look", "0.1", "--json", model=model)  # another method: asked again
    n_after = sum(len(path.read_text().splitlines()) for path in tmp_path.iterdir())
    assert n_after == len(lines) + 1


def test_a_draft_is_needed_before_layer_0_and_must_be_small_enough(run: Run, tiny: str) -> None:
    code, _, err = run("--tasks", "qa", "--length", LENGTH, "--samples", "1", "--keep", "-1:0.25")
    assert code == 1 and "name a draft with -md" in err
    code, _, err = run("--tasks", "qa", "--length", LENGTH, "--keep", "-1:0.25", "-md", tiny)
    assert code == 1 and "expected at least 3 times" in err
