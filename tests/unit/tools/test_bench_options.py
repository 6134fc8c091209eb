"""``lazygguf bench``: lists of schedules and lengths, and what is refused before anything is measured."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any, Callable

import pytest
from tiny_gguf import TinyConfig

from lazygguf import KeepSchedule
from lazygguf.cli.main import main

pytest.importorskip("lazygguf.tools.bench.command", reason="lazygguf is not installed with its tools")

from lazygguf.tools.bench.contenders import (
    LAZYGGUF,
    LLAMA_CPP,
    Contender,
    contenders,
    parse_lengths,
    split_keeps,
)
from lazygguf.tools.bench.text import random_ids
from lazygguf.tools.schedule_options import Asking, ModelShape

TinyModel = Callable[[TinyConfig], tuple[Path, Any]]
SHAPE = ModelShape(n_layer=10, n_head=4, metadata={})


def test_dense_is_always_measured_and_auto_where_nothing_is_said() -> None:
    assert split_keeps(None) == ["off", "auto"]
    assert split_keeps(["off"]) == ["off"]
    assert split_keeps(["3:0.5"]) == ["off", "3:0.5"]


def test_schedules_come_from_repeated_options_and_semicolons_each_once() -> None:
    given = ["3:0.5,6:0.1; auto", "off", "auto;1:0.9"]
    assert split_keeps(given) == ["off", "3:0.5,6:0.1", "auto", "1:0.9"]
    with pytest.raises(ValueError, match='"auto;;off": an empty schedule'):
        split_keeps(["auto;;off"])


def test_prompt_lengths_are_lists_and_ranges_as_llama_bench_takes_them() -> None:
    assert parse_lengths(["2048,512", "512"]) == [512, 2048]
    assert parse_lengths(["100-400+100"]) == [100, 200, 300, 400]
    assert parse_lengths(["512-4096*2,7"]) == [7, 512, 1024, 2048, 4096]
    for wrong in ("0", "-5", "", "many", "5-1+1", "1-5+0", "1-8*1"):
        with pytest.raises(ValueError, match="-p"):
            parse_lengths([wrong])


def test_the_rows_are_llama_cpp_then_dense_then_the_schedules() -> None:
    rows = contenders(["off", "3:0.5"], Asking(n_query=8, pool=7, max_revive=2), SHAPE, [LLAMA_CPP])
    schedule = KeepSchedule.parse("3:0.5", n_query=8, pool=7, max_revive=2)
    assert rows == [Contender(LLAMA_CPP), Contender(LAZYGGUF), Contender(LAZYGGUF, "3:0.5", schedule)]
    assert [row.label for row in rows] == ["llama.cpp", "off", "3:0.5"]
    assert [row.is_dense for row in rows] == [False, True, False]
    assert contenders(["off"], Asking(), SHAPE, []) == [Contender(LAZYGGUF)]


def test_auto_and_profiles_ask_as_they_say_themselves(tmp_path: Path) -> None:
    profile = tmp_path / "p.json"
    profile.write_text(KeepSchedule.parse("2:0.5", pool=3).to_json(), encoding="utf-8")
    auto, own = contenders(["auto", str(profile)], Asking(n_query=8, pool=7), SHAPE, [])
    assert auto.schedule == KeepSchedule.auto(10)
    assert own.schedule == KeepSchedule.parse("2:0.5", pool=3)
    assert auto.label == "auto (5:0.5,7:0.3)"


def test_a_schedule_that_does_not_fit_the_model_is_refused() -> None:
    with pytest.raises(ValueError, match="il is 9, expected at most 8"):
        contenders(["off", "9:0.5"], Asking(), SHAPE, [])
    with pytest.raises(ValueError, match="il is -1"):
        contenders(["-1:0.5"], Asking(), SHAPE, [])


def test_a_contender_survives_the_way_to_a_child_process() -> None:
    for row in contenders(["off", "3:0.5,5:0.2"], Asking(n_query="question"), SHAPE, [LLAMA_CPP]):
        assert Contender.from_dict(row.to_dict()) == row


def test_random_tokens_are_the_same_each_time_and_inside_the_vocabulary() -> None:
    ids = random_ids(50, 1000)
    assert ids == random_ids(50, 2000)[:1000]
    assert min(ids) >= 0 and max(ids) < 50 and len(set(ids)) == 50


# ---- the command line


def fails(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    code = main(["bench", *args])
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("lazygguf: error:") and err.count("\n") == 1
    return code, err


def test_options_that_do_not_fit_together_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert fails(capsys, "-m", "a.gguf", "--shape", "llama2-7b") == (
        2,
        "lazygguf: error: -m and --shape exclude each other\n",
    )
    assert fails(capsys, "--shape", "llama2-7b", "-f", "a.txt")[0] == 2
    assert fails(capsys, "-m", "a.gguf", "--shape-dir", ".")[0] == 2
    assert "--n-gen 0: expected 1 or more" in fails(capsys, "-m", "a.gguf", "-n", "0")[1]
    assert "COPY" in fails(capsys, "--shape", "llama2-7b", "--type", "COPY")[1]
    assert "Q4_K_M" in fails(capsys, "--shape", "llama2-7b", "--type", "Q4_K_L")[1]


def test_a_text_that_is_too_short_is_refused_with_the_way_out(
    tiny_model: TinyModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tiny_model(TinyConfig())[0])
    (tmp_path / "short.txt").write_text("the end", encoding="utf-8")
    code, err = fails(capsys, "-m", path, "-p", "30", "-n", "2", "-f", str(tmp_path / "short.txt"))
    assert code == 1 and "32 are needed: give a longer text with -f, or less -p" in err
    code, err = fails(capsys, "-m", path, "-p", "1000000")
    assert code == 1 and "the text of lazygguf has" in err and "1,000,064 are needed" in err


def test_a_plot_that_cannot_be_written_is_refused_before_the_run(
    tiny_model: TinyModel, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tiny_model(TinyConfig())[0])
    assert "expected a name that ends in .png" in fails(capsys, "-m", path, "--plot", "a.pdf")[1]
    assert "does not exist" in fails(capsys, "-m", path, "--plot", str(tmp_path / "none" / "a.png"))[1]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("lazygguf.tools.plot_file.find_spec", lambda name: None)
    code, err = fails(capsys, "-m", path, "--plot", str(tmp_path / "a.png"))
    assert (code, err) == (1, "lazygguf: error: --plot needs matplotlib: pip install 'lazygguf[plot]'\n")
    assert importlib.util.find_spec("json") is not None
