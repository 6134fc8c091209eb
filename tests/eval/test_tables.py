"""The figures of the table: intervals and ratios worked out by hand, text, JSON and picture."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lazygguf.tools.eval", reason="lazygguf is not installed with its tools")

from lazygguf.tools.eval import report
from lazygguf.tools.eval.methods import DENSE, Method
from lazygguf.tools.eval.report import (
    Row,
    bootstrap,
    make_kld_rows,
    make_rows,
    make_source_rows,
    ratio_of_means,
    to_json,
    to_text,
    wilson,
)
from lazygguf.tools.plot_file import check_plot

from lazygguf import KeepSchedule

DENSE_METHOD = Method(DENSE, DENSE, None)
LAZY_METHOD = Method("2:0.5", "keep", KeepSchedule.parse("2:0.5"))
METHODS = [DENSE_METHOD, LAZY_METHOD]


def record(method: Method, index: int, score: float, ttft_s: float, **changes: Any) -> dict[str, Any]:
    return {
        "method_id": method.digest,
        "task": "qa",
        "length": "1000",
        "index": index,
        "prompt_hash": str(index),
        "score": score,
        "ttft_s": ttft_s,
        "token_share": 1.0 if method is DENSE_METHOD else 0.5,
        "n_steps": 10,
        "revived": 0 if method is DENSE_METHOD else 20,
        "turn": "1",
        **changes,
    }


def pairs(task: str = "qa") -> list[dict[str, Any]]:
    """Dense scores 1 1 1 0, pruned 1 1 0 0; speed-ups 2, 4, 3, 3."""
    dense = [record(DENSE_METHOD, i, s, t, task=task) for i, (s, t) in enumerate([(1, 2), (1, 4), (1, 3), (0, 3)])]
    lazy = [record(LAZY_METHOD, i, s, 1.0, task=task) for i, s in enumerate([1, 1, 0, 0])]
    return [*dense, *lazy]


def test_the_wilson_interval_is_what_the_formula_gives() -> None:
    # z^2 = 3.8415: center (0.5 + 0.19207) / 1.38415 = 0.5, half 1.95996 / 1.38415 * sqrt(0.025 + 0.0096036) = 0.26341
    assert wilson(0.5, 10) == approx(0.23659, 0.76341)
    assert wilson(1.0, 20) == approx(20 / (20 + 1.959964**2), 1.0)
    assert wilson(0.0, 20) == approx(0.0, 1.959964**2 / (20 + 1.959964**2))


def approx(low: float, high: float) -> Any:
    return pytest.approx((low, high), abs=1e-4)


def test_the_bootstrap_interval_holds_the_value_and_is_always_the_same() -> None:
    values = [float(i) for i in range(20)]
    low, high = bootstrap(np.mean, values)
    assert low < 9.5 < high
    assert high - low == pytest.approx(2 * 1.96 * np.std(values) / math.sqrt(20), rel=0.1)
    assert bootstrap(np.mean, values) == (low, high)
    assert bootstrap(np.mean, [3.0]) == (3.0, 3.0)


def test_the_bootstrap_takes_pairs_together() -> None:
    scores = [0.0, 1.0, 1.0, 0.0, 1.0]
    assert bootstrap(ratio_of_means, scores, scores) == (1.0, 1.0)
    assert all(math.isnan(bound) for bound in bootstrap(ratio_of_means, [0.0], [0.0]))


def test_a_row_holds_the_score_the_ratio_the_share_and_the_speedup() -> None:
    dense, lazy = make_rows(pairs(), METHODS)
    assert (dense.method, dense.n, dense.score, dense.ratio, dense.speedup) == (DENSE, 4, 0.75, 1.0, 1.0)
    assert (lazy.score, lazy.token_share, lazy.ttft_s, lazy.revived) == (0.5, 0.5, 1.0, 2.0)
    assert lazy.ratio == pytest.approx(2 / 3)
    assert lazy.speedup == 3.0  # the median of 2, 4, 3, 3
    assert (lazy.low, lazy.high) == wilson(0.5, 4)


def test_the_ratio_is_over_the_questions_that_dense_answered_too() -> None:
    records = [r for r in pairs() if not (r["method_id"] == DENSE_METHOD.digest and r["index"] >= 2)]
    lazy = make_rows(records, METHODS)[1]
    assert (lazy.n, lazy.score, lazy.ratio) == (4, 0.5, 1.0)


def test_times_of_another_run_of_the_program_are_not_compared() -> None:
    records = [{**r, "turn": str(r["index"] if r["method_id"] == LAZY_METHOD.digest else 0)} for r in pairs()]
    assert make_rows(records, METHODS)[1].speedup == 2.0  # only index 0 is of the same run
    apart = [{**r, "turn": r["method_id"]} for r in pairs()]
    assert make_rows(apart, METHODS)[1].speedup is None


def test_without_a_dense_run_there_is_nothing_to_compare_with() -> None:
    lazy = make_rows([r for r in pairs() if r["method_id"] == LAZY_METHOD.digest], [LAZY_METHOD])[0]
    assert (lazy.ratio, lazy.speedup, lazy.score) == (None, None, 0.5)
    assert " - " in to_text([lazy], [])


def test_a_dense_score_of_zero_gives_no_ratio() -> None:
    lazy = make_rows([{**r, "score": 0.0} for r in pairs()], METHODS)[1]
    assert lazy.ratio is None and lazy.speedup == 3.0


def test_several_tasks_get_a_row_over_all() -> None:
    records = [*pairs(), *({**r, "score": 1.0} for r in pairs("vt"))]
    rows = make_rows(records, METHODS)
    assert [(row.task, row.method) for row in rows] == [
        (task, method) for task in ("qa", "vt", "all") for method in (DENSE, "2:0.5")
    ]
    assert (rows[-1].n, rows[-1].score) == (8, 0.75)


def test_the_text_has_a_line_for_each_row_in_columns() -> None:
    text = to_text(make_rows(pairs(), METHODS), [])
    head, dense, lazy = text.splitlines()[:3]
    assert head.split() == [
        *("task", "length", "method", "n", "score", "95%", "of", "dense"),
        *("share", "ttft", "s", "speed-up", "revived"),
    ]
    assert dense.split() == [
        *("qa", "1000", "dense", "4", "0.750", "0.30-0.95"),
        *("1.00", "1.00", "3.00", "1.00x", "0.0"),
    ]
    assert lazy.split() == [
        *("qa", "1000", "2:0.5", "4", "0.500", "0.15-0.85"),
        *("0.67", "0.50", "1.00", "3.00x", "2.0"),
    ]
    assert "Wilson" in text
    assert to_text([], []) == "no answers\n"


def test_kld_has_its_own_rows_and_none_among_the_scores() -> None:
    divergence = {"kld": [0.0, 1.0], "nll": [1.0, 1.0], "nll_base": [1.0, 1.0], "same_top": [True, False]}
    records = [record(LAZY_METHOD, 0, 0.5, 1.0, task="kld", divergence=divergence)]
    assert make_rows(records, METHODS) == []
    (row,) = make_kld_rows(records, METHODS)
    assert (row["method"], row["kld_mean"], row["same_top"], row["n_tokens"]) == ("2:0.5", 0.5, 0.5, 2)
    assert "50.0%" in to_text([], [row])


def test_the_json_holds_the_same_rows() -> None:
    rows = make_rows(pairs(), METHODS)
    back = json.loads(json.dumps(to_json(rows, [])))
    assert [Row(**row) for row in back["rows"]] == rows


def test_the_picture_shows_a_point_with_bars_for_each_method(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra [plot] is not installed")
    path = tmp_path / "quality.svg"
    report.draw(path, make_rows(pairs(), METHODS), {DENSE: DENSE, "2:0.5": "keep"}, "title")
    text = path.read_text(encoding="utf-8")
    assert "<svg" in text and "2:0.5" in text and "dense" in text


def test_the_picture_is_of_all_tasks_together_where_there_are_several() -> None:
    one, several = make_rows(pairs(), METHODS), make_rows([*pairs(), *pairs("vt")], METHODS)
    assert report.plotted(one) == one
    assert [row.task for row in report.plotted(several)] == ["all", "all"]
    assert report.plotted([row for row in make_rows([{**r, "score": 0.0} for r in pairs()], METHODS)]) == []


def test_a_picture_that_cannot_be_written_is_refused_before_the_run(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra [plot] is not installed")
    with pytest.raises(ValueError, match=r"expected a name that ends in"):
        check_plot(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        check_plot(tmp_path / "missing" / "a.png")


def test_sources_count_for_right_answers_alone() -> None:
    def held(method: Method, index: int, score: float, share: float, task: str = "qa") -> dict[str, Any]:
        return record(method, index, score, 1.0, task=task, evidence_held=share)

    records = [
        *(held(DENSE_METHOD, i, 1.0, share) for i, share in enumerate([1.0, 1.0, 0.5, 0.0])),
        held(DENSE_METHOD, 4, 0.0, 0.0),  # a wrong answer
        held(LAZY_METHOD, 0, 1.0, 1.0),
        held(DENSE_METHOD, 0, 1.0, 1.0, task="niah_single"),
        record(LAZY_METHOD, 1, 1.0, 1.0),  # a task whose evidence is not known
    ]
    rows = make_source_rows(records, METHODS)
    assert [(row.task, row.method, row.n, row.held) for row in rows] == [
        ("qa", DENSE, 4, 0.625),
        ("qa", "2:0.5", 1, 1.0),
        ("niah_single", DENSE, 1, 1.0),
        ("all", DENSE, 5, 0.7),
        ("all", "2:0.5", 1, 1.0),
    ]
    assert (rows[0].low, rows[0].high) == wilson(0.625, 4)
    text = to_text(make_rows(records, METHODS), [], rows)
    assert "qa             1000  dense       4  0.625  " in text and "right: answers with the full score" in text
    assert to_json([], [], rows)["sources"][0]["held"] == 0.625
    assert "sources" not in to_json([], []) and make_source_rows([record(LAZY_METHOD, 1, 1.0, 1.0)], METHODS) == []
