"""Runs against fake readers: the order, what is skipped, what is written, and what survives an end at any point."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest

pytest.importorskip("lazygguf.tools.eval", reason="lazygguf is not installed with its tools")

from lazygguf.tools.eval.engine import Answer
from lazygguf.tools.eval.methods import DENSE, Method
from lazygguf.tools.eval.prompts import KLD, Question, TaskPrompt
from lazygguf.tools.eval.runner import AnswerFile, Plan, Run

from lazygguf import KeepSchedule
from lazygguf.generate.loop import Logits

DENSE_METHOD = Method(DENSE, DENSE, None)
LAZY_METHOD = Method("2:0.5", "keep", KeepSchedule.parse("2:0.5"))


class FakeReader:
    """Says the prompt's first id; remembers what it was asked."""

    def __init__(self, method: Method, log: list[tuple[str, int]], stop_at: Optional[int] = None) -> None:
        self.method, self._log, self._stop_at = method, log, stop_at
        self.n_warm_ups = 0

    def answer(self, prompt: TaskPrompt) -> Answer:
        if self._stop_at is not None and len(self._log) == self._stop_at:
            raise KeyboardInterrupt
        self._log.append((self.method.label, prompt.ids[0]))
        return Answer(str(prompt.ids[0]), 2.0, 1.0, 10, 0.5, 5, [10, 5])

    def follow(self, prompt: TaskPrompt, continuation: tuple[int, ...]) -> tuple[list[Logits], Answer]:
        self._log.append((self.method.label, prompt.ids[0]))
        answer = Answer("", 2.0, 1.0, len(continuation) - 1, 0.5, 0, [10])
        return [np.zeros(4, np.float32) for _ in continuation], answer

    def warm_up(self, prompt: TaskPrompt) -> None:
        self.n_warm_ups += 1


class FakeSource:
    """Questions whose prompt is one id, and whose answer is right when it is said."""

    def __init__(self, task: str, n_questions: int, first: int = 0) -> None:
        self.task, self.n_questions, self._first = task, n_questions, first

    def question(self, index: int) -> Question:
        said = self._first + index
        continuation = (1, 2) if self.task == KLD else None
        return Question(
            self.task,
            "100",
            index,
            TaskPrompt((said,), None, max_tokens=8),
            [str(said)],
            lambda pred: float(pred == str(said)),
            continuation,
        )


def plan(log: list[tuple[str, int]], stop_at: Optional[int] = None, **changes: Any) -> Plan:
    readers = [FakeReader(method, log, stop_at) for method in (DENSE_METHOD, LAZY_METHOD)]
    return replace(Plan([FakeSource("a", 2, 10), FakeSource("b", 2, 20)], readers, {"n_threads": 1}, 7), **changes)


def done(made: Plan, answers: AnswerFile) -> Run:
    work = Run(made, answers)
    work.all(lambda n_done, n_total: None)
    return work


def test_every_question_is_asked_of_all_methods_before_the_next_and_all_take_turns_to_begin() -> None:
    log: list[tuple[str, int]] = []
    done(plan(log), AnswerFile(None, "m"))
    assert log == [
        *((DENSE, 10), ("2:0.5", 10), (DENSE, 20), ("2:0.5", 20)),
        *(("2:0.5", 11), (DENSE, 11), ("2:0.5", 21), (DENSE, 21)),
    ]


def test_every_reader_is_warmed_up_once_before_the_first_answer() -> None:
    made = plan([])
    done(made, AnswerFile(None, "m"))
    assert [reader.n_warm_ups for reader in made.readers] == [1, 1]  # type: ignore[attr-defined]


def test_progress_counts_all_answers_old_ones_included(tmp_path: Path) -> None:
    done(plan([]), AnswerFile(tmp_path, "m"))
    seen: list[tuple[int, int]] = []
    Run(plan([]), AnswerFile(tmp_path, "m")).all(lambda n_done, n_total: seen.append((n_done, n_total)))
    assert seen == [(i, 8) for i in range(9)]


def test_an_answer_is_a_line_with_all_that_belongs_to_it(tmp_path: Path) -> None:
    done(plan([]), AnswerFile(tmp_path, "m"))
    lines = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 8
    first = lines[0]
    assert (first["method"], first["task"], first["length"], first["index"], first["seed"]) == (DENSE, "a", "100", 0, 7)
    assert (first["pred"], first["references"], first["score"], first["n_prompt"]) == ("10", ["10"], 1.0, 1)
    assert (first["ttft_s"], first["decode_s"], first["token_share"], first["revived"]) == (2.0, 1.0, 0.5, 5)
    assert lines[1]["schedule"] == KeepSchedule.parse("2:0.5").to_dict()


def test_what_is_answered_is_not_asked_again(tmp_path: Path) -> None:
    once = done(plan([]), AnswerFile(tmp_path, "m"))
    log: list[tuple[str, int]] = []
    again = done(plan(log), AnswerFile(tmp_path, "m"))
    assert log == []
    assert again.records == once.records


def test_an_interrupted_run_goes_on_where_it_ended(tmp_path: Path) -> None:
    log: list[tuple[str, int]] = []
    work = Run(plan(log, stop_at=3), AnswerFile(tmp_path, "m"))
    with pytest.raises(KeyboardInterrupt):
        work.all(lambda n_done, n_total: None)
    assert len(work.records) == 3
    rest: list[tuple[str, int]] = []
    whole = done(plan(rest), AnswerFile(tmp_path, "m"))
    assert len(rest) == 5 and not set(rest) & set(log)
    assert len(whole.records) == 8


def test_a_half_written_last_line_is_dropped_and_asked_again(tmp_path: Path) -> None:
    done(plan([]), AnswerFile(tmp_path, "m"))
    path = tmp_path / "m.jsonl"
    data = path.read_bytes()
    path.write_bytes(data[:-20])
    log: list[tuple[str, int]] = []
    done(plan(log), AnswerFile(tmp_path, "m"))
    assert len(log) == 1
    assert len([json.loads(line) for line in path.read_bytes().splitlines()]) == 8


def test_a_line_that_is_no_answer_is_refused_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"some": "thing"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"m\.jsonl: line 1 is no answer of lazygguf eval; give another --out"):
        AnswerFile(tmp_path, "m")


def test_answers_of_other_models_settings_and_methods_are_kept_apart(tmp_path: Path) -> None:
    done(plan([]), AnswerFile(tmp_path, "m"))
    log: list[tuple[str, int]] = []
    done(plan(log), AnswerFile(tmp_path, "another-model"))
    assert len(log) == 8
    log.clear()
    done(plan(log, settings={"n_threads": 2}), AnswerFile(tmp_path, "m"))
    assert len(log) == 8
    log.clear()
    other = FakeReader(Method("2:0.5", "keep", KeepSchedule.parse("2:0.5", pool=3)), log)
    work = done(plan(log, readers=[FakeReader(DENSE_METHOD, log), other]), AnswerFile(tmp_path, "m"))
    assert [label for label, _ in log] == ["2:0.5"] * 4
    assert len(work.records) == 8  # of this run's methods, though the file holds 20


def test_kld_asks_dense_first_and_again_where_only_its_line_is_left(tmp_path: Path) -> None:
    log: list[tuple[str, int]] = []
    done(plan(log, sources=[FakeSource(KLD, 2)]), AnswerFile(tmp_path, "m"))
    assert [label for label, _ in log] == [DENSE, "2:0.5", DENSE, "2:0.5"]
    path = tmp_path / "m.jsonl"
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if json.loads(line)["method"] == DENSE]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    log.clear()
    work = done(plan(log, sources=[FakeSource(KLD, 2)]), AnswerFile(tmp_path, "m"))
    assert [label for label, _ in log] == [DENSE, "2:0.5", DENSE, "2:0.5"]
    assert len(work.records) == 4
    assert work.records[1]["divergence"]["kld"] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("sources", "evidence", "held"),
    [
        (["It was told. Ann paid 7. So be it.", "Bob paid 8."], ["Ann paid 7.", "Bob paid 8."], 1.0),
        (["It was told. Ann paid 7.", "Bob"], ["Ann paid 7.", "Bob paid 8."], 0.5),
        ([], ["Ann paid 7."], 0.0),
        (["Ann paid 7."], [], None),
        (None, ["Ann paid 7."], None),
    ],
)
def test_a_record_says_how_much_of_the_evidence_the_sources_hold(
    sources: Optional[list[str]], evidence: list[str], held: Optional[float]
) -> None:
    class Leaning(FakeReader):
        def answer(self, prompt: TaskPrompt) -> Answer:
            return replace(super().answer(prompt), sources=sources)

    class Told(FakeSource):
        def question(self, index: int) -> Question:
            return replace(super().question(index), evidence=evidence)

    work = done(Plan([Told("a", 1)], [Leaning(DENSE_METHOD, [])], {"n_threads": 1}, 7), AnswerFile(None, "m"))
    assert work.records[0].get("evidence_held") == held
    assert work.records[0]["sources"] == sources
