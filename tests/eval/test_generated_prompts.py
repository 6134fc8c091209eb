"""The generated tasks: what is in a prompt, where it stands, and what decides it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any, Callable

import pytest
from tiny_gguf import CHATML, TinyConfig

pytest.importorskip("lazygguf.tools.eval", reason="lazygguf is not installed with its tools")

from lazygguf.tools.eval.aggregation import CHAINS
from lazygguf.tools.eval.prompts import DEPTHS, Haystack, Parts, Prompter, Wording, depth_of, fit, insert_at_depths
from lazygguf.tools.eval.retrieval import KINDS, N_PASSAGES, PASSAGES
from lazygguf.tools.eval.tasks import GENERATED, REWORDED, Form, GeneratedSource

from lazygguf.text.tokenizer import Tokenizer

KEY = "tokenizer.chat_template"
LENGTH = 9000  # tokens of a tokenizer that knows little more than bytes: about 1,500 words
NEEDLE = re.compile(r"One of the special magic numbers for ([a-z]+-[a-z]+) is: (\d{7})\.")
TinyModel = Callable[[TinyConfig], tuple[Path, Any]]


@pytest.fixture(scope="module")
def tokenizer(tiny_model: TinyModel) -> Tokenizer:
    return Tokenizer(str(tiny_model(TinyConfig())[0]))


@pytest.fixture(scope="module")
def prompter(tokenizer: Tokenizer) -> Prompter:
    return Prompter(tokenizer, {KEY: CHATML})


@pytest.fixture(scope="module")
def haystack() -> Haystack:
    return Haystack.read(None)


@pytest.fixture
def source(prompter: Prompter, haystack: Haystack) -> Callable[..., GeneratedSource]:
    def make(task: str, length: int = LENGTH, seed: int = 7, **form: Any) -> GeneratedSource:
        return GeneratedSource(task, length, 3, seed, haystack, prompter, Form(**form))

    return make


@pytest.mark.parametrize("task", GENERATED)
def test_a_prompt_fills_its_length_and_does_not_exceed_it(source: Callable[..., GeneratedSource], task: str) -> None:
    prompt = source(task).question(0).prompt
    slack = 260 if task == "vt" else 120  # tokens of the next unit: a line of noise, words of a list
    assert LENGTH - slack <= len(prompt.ids) <= LENGTH
    # RULER's limits; vt and fwe have 40 and 20 more, for a model that says RULER's answer prefix itself
    assert prompt.max_tokens == {"vt": 70, "cwe": 120, "fwe": 70, "qa": 32}.get(task, 128)
    assert source(task, with_prefix=True).max_tokens == {"vt": 30, "cwe": 120, "fwe": 50, "qa": 32}.get(task, 128)


@pytest.mark.parametrize("task", GENERATED)
def test_the_same_seed_gives_the_same_prompt_and_another_seed_another(
    source: Callable[..., GeneratedSource], task: str
) -> None:
    once, again = source(task).question(1), source(task).question(1)
    assert once.prompt.digest == again.prompt.digest
    assert once.references == again.references
    others = [source(task, seed=8).question(1), source(task).question(2)]
    assert once.prompt.digest not in [other.prompt.digest for other in others]


def test_a_prompt_does_not_depend_on_what_was_asked_before(source: Callable[..., GeneratedSource]) -> None:
    alone = source("qa").question(2).prompt.digest
    for task in ("niah_single", "cwe", "qa"):
        source(task, length=4000).question(0)
    asked = source("qa")
    asked.question(0)
    assert asked.question(2).prompt.digest == alone


@pytest.mark.parametrize("task", GENERATED)
def test_the_templates_search_finds_the_question(
    source: Callable[..., GeneratedSource], tokenizer: Tokenizer, task: str
) -> None:
    made = source(task)
    prompt, question = made.question(0).prompt, made.parts(0).question
    assert prompt.query_span is not None
    asked = b"".join(tokenizer.piece(token, special=True) for token in prompt.ids[slice(*prompt.query_span)])
    assert prompt.query_span[1] - prompt.query_span[0] <= 128
    assert question.endswith(asked.decode().strip())  # all of it, or the last 128 tokens
    assert len(asked) >= min(len(question), 100)
    tail = b"".join(tokenizer.piece(token, special=True) for token in prompt.ids[prompt.query_span[1] :])
    assert tail == b"<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("is_reworded", [False, True], ids=["own words", "reworded"])
@pytest.mark.parametrize("task", ["niah_single", "niah_multikey", "niah_multivalue", "qa"])
def test_the_evidence_is_the_sentences_that_hold_the_answers(
    source: Callable[..., GeneratedSource], task: str, is_reworded: bool
) -> None:
    made = source(task, is_reworded=is_reworded)
    for index in range(8):
        parts = made.parts(index)
        assert len(parts.evidence) == len(parts.references)
        for sentence, reference in zip(parts.evidence, parts.references):
            assert reference in sentence and parts.document.count(sentence) == 1
        assert tuple(made.question(index).evidence) == parts.evidence


@pytest.mark.parametrize("task", REWORDED)
def test_other_words_ask_the_same_and_none_of_the_own_words_are_left(
    source: Callable[..., GeneratedSource], task: str
) -> None:
    made = source(task, is_reworded=True)
    parts, own = made.parts(1), source(task).parts(1)
    assert made.question(1).task == f"{task}/reworded"
    assert parts.references == own.references
    assert all(reference in f"{parts.document} {parts.question}" for reference in parts.references)
    assert len(made.question(1).prompt.ids) <= LENGTH
    said = f"{parts.instruction}{parts.document}{parts.question}{parts.answer_prefix}"
    for word in ("special magic", "VAR ", "assign", "The grass is green", "Question:", "Answer", "Document 1"):
        assert word not in said
    assert parts.question != own.question and parts.answer_prefix != own.answer_prefix


def test_every_question_about_a_person_has_other_words(source: Callable[..., GeneratedSource]) -> None:
    for index in range(len(KINDS)):
        own, other = source("qa").parts(index).question, source("qa", is_reworded=True).parts(index).question
        assert own.startswith("Question: ") and other.endswith("?")
        assert other != own.removeprefix("Question: ")


def test_a_needle_stands_at_its_depth(source: Callable[..., GeneratedSource], haystack: Haystack) -> None:
    for index in range(8):
        parts = source("niah_single").parts(index)
        assert parts.depths == (depth_of(7, index),)
        sentences = re.split(r"(?<=[.!?])\s+", parts.document)
        place = next(i for i, sentence in enumerate(sentences) if NEEDLE.fullmatch(sentence))
        assert place == (len(sentences) - 1) * parts.depths[0] // 100


def test_depths_spread_over_the_whole_text_without_a_gap() -> None:
    assert [depth_of(0, index) for index in range(4)] == [0, 44, 87, 28]
    assert sorted(depth_of(3, index) for index in range(40)) == sorted(DEPTHS)
    few = sorted(depth_of(42, index) for index in range(8))
    assert max(b - a for a, b in zip(few, few[1:])) <= 20
    assert (DEPTHS[0], DEPTHS[-1]) == (0, 100)


def test_depth_0_stands_before_the_text_and_depth_100_after_it() -> None:
    assert insert_at_depths(["a", "b"], [(100, "z"), (0, "y"), (50, "x")]) == ["y", "a", "x", "b", "z"]


@pytest.mark.parametrize(
    "task, n_planted, n_asked",
    [("niah_single", 1, 1), ("niah_multikey", 9, 1), ("niah_multivalue", 4, 4), ("niah_multiquery", 4, 4)],
)
def test_needles_are_all_there_once_and_differ(
    source: Callable[..., GeneratedSource], task: str, n_planted: int, n_asked: int
) -> None:
    for index in range(5):
        parts = source(task).parts(index)
        planted = NEEDLE.findall(parts.document)
        assert len(planted) == n_planted
        assert len({value for _, value in planted}) == n_planted
        assert len({key for key, _ in planted}) == (1 if task == "niah_multivalue" else n_planted)
        assert len(parts.references) == n_asked
        asked = {key for key in (key for key, _ in planted) if key in parts.question}
        assert {value for key, value in planted if key in asked} == set(parts.references)
        for value in parts.references:
            assert parts.document.count(value) == 1
            assert value not in parts.question + parts.instruction


def test_one_value_is_asked_for_in_the_singular_and_several_in_the_plural(
    source: Callable[..., GeneratedSource],
) -> None:
    single, several = source("niah_single").parts(0), source("niah_multivalue").parts(0)
    assert single.instruction.startswith("A special magic number is hidden within the following text.")
    assert re.fullmatch(
        r"What is the special magic number for [a-z-]+ mentioned in the provided text\?", single.question
    )
    assert several.instruction.startswith("Some special magic numbers are hidden within the following text.")
    assert several.question.startswith("What are all the special magic numbers for ")


def test_variables_form_one_chain_from_the_asked_value(source: Callable[..., GeneratedSource]) -> None:
    parts = source("vt").parts(0)
    value = re.search(r"assigned the value (\d{5})", parts.question)
    assert value is not None
    lines = [line.strip() for line in parts.document.split("\n") if line.startswith("VAR ")]
    names = list(parts.references)
    assert lines == [f"VAR {names[0]} = {value[1]}", *(f"VAR {b} = VAR {a}" for a, b in zip(names, names[1:]))]
    assert len(names) == len(set(names)) == 5
    assert set(parts.document.split("\n")) - {CHAINS.noise} == {
        line for line in parts.document.split("\n") if "VAR" in line
    }


def test_the_ten_common_words_come_more_often_than_every_other(source: Callable[..., GeneratedSource]) -> None:
    for length, common, rare in ((3000, 6, 1), (LENGTH, 30, 3)):
        parts = source("cwe", length=length).parts(0)
        counts = Counter(re.findall(r"\d+\. ([a-z]+)", parts.document))
        assert {word for word, n in counts.items() if n == common} == set(parts.references)
        assert {n for word, n in counts.items() if word not in parts.references} == {rare}
        assert len(parts.references) == 10


def test_the_three_frequent_words_come_in_their_order_after_the_dots(source: Callable[..., GeneratedSource]) -> None:
    for length in (1500, LENGTH):
        parts = source("fwe", length=length).parts(0)
        ranked = Counter(parts.document.split()).most_common(5)
        assert [word for word, _ in ranked[:4]] == ["...", *parts.references]
        assert ranked[3][1] > ranked[4][1]


def test_one_passage_of_ten_answers_and_its_answer_stands_nowhere_else(
    source: Callable[..., GeneratedSource],
) -> None:
    asked = set()
    for index in range(len(KINDS)):
        parts = source("qa").parts(index)
        passages = re.split(r"\n\n(?=Document \d+:\n)", parts.document)
        assert len(passages) == N_PASSAGES
        (reference,) = parts.references
        holding = [i for i, passage in enumerate(passages) if reference.lower() in passage.lower()]
        assert holding == [round(parts.depths[0] * (N_PASSAGES - 1) / 100)]
        assert reference.lower() not in parts.question.lower()
        facts = [f for f in PASSAGES.facts if re.search(f[1].format(name=".*", value=".*"), parts.question)]
        assert len(facts) == 1
        told, question = facts[0]
        asked.add(question)
        alike = re.compile(told.format(name=r"\w+ \w+", value=r"\w+"))
        assert len(alike.findall(parts.document)) >= 2  # the kind of fact alone does not lead to the answer
    assert len(asked) == len(KINDS)


def test_the_question_can_stand_before_the_text_or_on_both_sides(source: Callable[..., GeneratedSource]) -> None:
    parts = source("niah_single").parts(0)
    first, both = parts.content("before"), parts.content("both")
    assert first.startswith(parts.question) and first.endswith(parts.document)
    assert both.startswith(parts.question) and both.endswith(f"\n\n{parts.question}")
    question = source("niah_single", place="before").question(0)
    assert question.task == "niah_single/before"
    assert len(question.prompt.ids) <= LENGTH


def test_a_model_without_a_template_gets_plain_text_and_the_answers_begin(
    tokenizer: Tokenizer, haystack: Haystack, source: Callable[..., GeneratedSource]
) -> None:
    plain = GeneratedSource("niah_single", LENGTH, 1, 7, haystack, Prompter(tokenizer, {}))
    text = tokenizer.detokenize(plain.question(0).prompt.ids).decode()
    key = NEEDLE.findall(text)[0][0]
    assert text.endswith(f"The special magic number for {key} mentioned in the provided text is")
    assert plain.question(0).prompt.query_span is not None
    prefixed = source("niah_single", with_prefix=True).question(0).prompt
    assert tokenizer.detokenize(prefixed.ids, special=True).decode().endswith("mentioned in the provided text is")
    assert len(prefixed.ids) <= LENGTH


def test_a_length_that_the_least_prompt_exceeds_is_refused_with_both_numbers(
    source: Callable[..., GeneratedSource],
) -> None:
    with pytest.raises(ValueError, match=r"--length 100, task qa: 100 tokens are too few, expected at least \d+"):
        source("qa", length=100).question(0)


def test_fit_finds_the_most_units_that_fit() -> None:
    def build(n: int) -> Parts:
        return Parts("", "x" * n, "", ())

    for limit in (5, 6, 17, 100, 101):
        assert len(fit(build, lambda parts: len(parts.document), 5, limit).document) == limit
    with pytest.raises(ValueError, match="4 tokens are too few, expected at least 5"):
        fit(build, lambda parts: len(parts.document), 5, 4)


def test_a_haystack_that_already_answers_is_refused(prompter: Prompter) -> None:
    towns = " ".join(kind_value for kind in KINDS for kind_value in kind.values[:200])
    haystack = Haystack(f"{towns}. " + "word " * 300, "mine.txt")
    with pytest.raises(ValueError, match=r"task qa: mine\.txt already holds answers to"):
        GeneratedSource("qa", LENGTH, 1, 7, haystack, prompter).question(0)


def test_a_haystack_of_few_words_is_refused() -> None:
    with pytest.raises(ValueError, match=r"short\.txt has 3 words, expected at least 200"):
        Haystack("only three words", "short.txt")


def test_a_list_that_needs_more_words_than_the_haystack_has_is_refused(prompter: Prompter) -> None:
    haystack = Haystack("one two three four five. " * 100, "mine.txt")
    with pytest.raises(ValueError, match=r"task cwe: mine\.txt has 4 different words, a list of this length needs"):
        GeneratedSource("cwe", LENGTH, 1, 7, haystack, prompter).question(0)


def test_a_question_given_explicitly_is_found_where_the_templates_search_would_miss_it(
    prompter: Prompter, tokenizer: Tokenizer
) -> None:
    content = "text " * 300 + "\n\nQuestion: Who?\n\nAnswer:"
    prompt = prompter.prompt(content, Wording(question="Who?"), 8)
    ids, span = prompt.ids, prompt.query_span
    assert span is not None
    assert tokenizer.detokenize(ids[slice(*span)]).decode().strip() == "Who?"
    prompt = prompter.prompt(content, Wording(), 8)
    ids, span = prompt.ids, prompt.query_span
    assert span is not None
    assert tokenizer.detokenize(ids[slice(*span)]).decode().strip() == "Answer:"
