"""LongBench's files: prompts, truncation, wrapping, scoring, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import pytest
from tiny_gguf import CHATML, TinyConfig

pytest.importorskip("lazygguf.tools.eval", reason="lazygguf is not installed with its tools")

from lazygguf.tools.eval import longbench
from lazygguf.tools.eval.longbench import LONGBENCH, LONGBENCH_E, NOT_CHAT, LongBenchSource, found_tasks, score
from lazygguf.tools.eval.prompts import Prompter

from lazygguf.text.tokenizer import Tokenizer

TinyModel = Callable[[TinyConfig], tuple[Path, Any]]
LINE: dict[str, Any] = {
    "input": "Who wrote it?",
    "context": "Passage 1:\nIt was written by Ada. Braces {like} these stay.",
    "answers": ["Ada", "Ada Lovelace"],
    "length": 5000,
    "dataset": "hotpotqa",
    "language": "en",
    "all_classes": None,
    "_id": "x",
}


@pytest.fixture(scope="module")
def tokenizer(tiny_model: TinyModel) -> Tokenizer:
    return Tokenizer(str(tiny_model(TinyConfig())[0]))


@pytest.fixture
def source(tokenizer: Tokenizer, tmp_path: Path) -> Callable[..., LongBenchSource]:
    def make(task: str, n_lines: int = 1, max_length: int = 4000, **changes: Any) -> LongBenchSource:
        lines = [json.dumps({**LINE, **changes}) + "\n"] * n_lines
        (tmp_path / f"{task}.jsonl").write_text("".join(lines), encoding="utf-8")
        prompter = Prompter(tokenizer, {"tokenizer.chat_template": CHATML})
        return LongBenchSource(task, tmp_path, 2, max_length, prompter)

    return make


def test_every_task_has_a_prompt_with_the_context_and_a_metric() -> None:
    templates = longbench.prompt_templates()
    assert list(templates) == list(LONGBENCH)
    assert len(LONGBENCH) == 21 and len(LONGBENCH_E) == 13
    without_input = {"gov_report", "multi_news", "vcsum", "passage_count", "lcc"}
    for task, template in templates.items():
        assert template.count("{context}") == 1
        assert template.count("{input}") == (0 if task in without_input else 1)


def test_the_typo_of_the_narrativeqa_prompt_is_kept() -> None:
    assert longbench.prompt_templates()["narrativeqa"].count("asconcisely") == 2


def test_a_prompt_is_the_template_filled_in_and_wrapped(
    source: Callable[..., LongBenchSource], tokenizer: Tokenizer
) -> None:
    question = source("hotpotqa").question(0)
    text = tokenizer.detokenize(question.prompt.ids, special=True).decode()
    assert f"The following are given passages.\n{LINE['context']}\n\nAnswer the question" in text
    assert text.endswith("Question: Who wrote it?\nAnswer:<|im_end|>\n<|im_start|>assistant\n")
    assert question.prompt.max_tokens == 32
    assert question.references == ["Ada", "Ada Lovelace"]
    assert question.score("ada!") == 1.0


@pytest.mark.parametrize("task", NOT_CHAT)
def test_few_shot_and_code_tasks_are_not_wrapped(
    source: Callable[..., LongBenchSource], tokenizer: Tokenizer, task: str
) -> None:
    prompt = source(task).question(0).prompt
    assert "<|im_start|>" not in tokenizer.detokenize(prompt.ids, special=True).decode()


def test_the_input_is_what_asks(source: Callable[..., LongBenchSource], tokenizer: Tokenizer) -> None:
    for task in ("narrativeqa", "trec", "qasper"):
        prompt = source(task).question(0).prompt
        assert prompt.query_span is not None
        assert tokenizer.detokenize(prompt.ids[slice(*prompt.query_span)]).decode().strip() == "Who wrote it?"


def test_where_there_is_no_input_the_instruction_after_the_text_asks(
    source: Callable[..., LongBenchSource], tokenizer: Tokenizer
) -> None:
    prompt = source("lcc", input="").question(0).prompt
    assert prompt.query_span is not None
    assert tokenizer.detokenize(prompt.ids[slice(*prompt.query_span)]).decode().strip() == "Next line of code:"


def test_a_long_prompt_loses_its_middle(source: Callable[..., LongBenchSource], tokenizer: Tokenizer) -> None:
    made = source("lcc", max_length=100, context="a" * 500 + "b" * 500)
    whole = longbench.prompt_templates()["lcc"].format(**{**LINE, "context": "a" * 500 + "b" * 500})
    cut = made.truncated(whole)
    assert whole.startswith(cut[:40]) and whole.endswith(cut[-40:])
    ids = tokenizer.tokenize(whole.encode(), add_bos=True, special=True)
    halves = (tokenizer.detokenize(ids[:50]), tokenizer.detokenize(ids[-50:]))
    assert cut == (halves[0] + halves[1]).decode()
    assert made.truncated("short") == "short"


def test_samsum_ends_at_a_line_break_but_not_before_the_first_token(source: Callable[..., LongBenchSource]) -> None:
    prompt = source("samsum").question(0).prompt
    assert (prompt.stops, prompt.min_tokens) == (("\n",), 1)
    assert source("trec").question(0).prompt.stops == ()


def test_only_the_first_line_of_a_few_shot_answer_counts() -> None:
    assert score("triviaqa", "\n\nAda\nPassage: more", ["Ada"], []) == 1.0
    assert score("hotpotqa", "Ada\nmore", ["Ada"], []) == pytest.approx(2 / 3)
    assert score("trec", "Food\nAnimal", ["Food"], ["Food", "Animal"]) == 1.0


def test_the_best_of_several_expected_answers_counts() -> None:
    assert score("hotpotqa", "Lovelace", ["Ada", "Lovelace"], []) == 1.0
    assert score("qasper_e", "no", ["yes", "no"], []) == 1.0


def test_longbench_e_is_grouped_by_length() -> None:
    lengths = [3999, 4000, 7999, 8000]
    assert [longbench.bucket("qasper_e", n) for n in lengths] == ["0-4k", "4-8k", "4-8k", "8k+"]
    assert longbench.bucket("qasper", 3999) == ""


def test_at_most_the_wanted_questions_are_read(source: Callable[..., LongBenchSource]) -> None:
    assert source("qasper", n_lines=5).n_questions == 2


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "line 1: no valid JSON"),
        ("[]", "line 1: a JSON list, expected an object"),
        (json.dumps({**LINE, "answers": "Ada"}), "line 1: answers is 'Ada', expected list"),
        (json.dumps({key: LINE[key] for key in ("input", "context", "answers")}), "line 1: length is None"),
        ("\n", "no question in it"),
    ],
)
def test_a_file_that_is_no_longbench_file_is_refused(
    tokenizer: Tokenizer, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "qasper.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        LongBenchSource("qasper", tmp_path, 2, 1000, Prompter(tokenizer, {}))


def test_a_folder_tells_which_tasks_it_has(tmp_path: Path) -> None:
    for name in ("trec", "qasper", "qasper_e", "readme"):
        (tmp_path / f"{name}.jsonl").touch()
    assert found_tasks(tmp_path) == ["qasper", "trec", "qasper_e"]
    with pytest.raises(FileNotFoundError, match="no file of LongBench in it"):
        found_tasks(_empty(tmp_path))
    with pytest.raises(NotADirectoryError, match="no such folder"):
        found_tasks(tmp_path / "missing")


def _empty(folder: Path) -> Path:
    empty = folder / "empty"
    empty.mkdir()
    return empty
