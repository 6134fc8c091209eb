"""Scores worked out by hand from RULER's and LongBench's definitions."""

from __future__ import annotations

import pytest

pytest.importorskip("lazygguf.tools.eval", reason="lazygguf is not installed with its tools")

from lazygguf.tools.eval import longbench
from lazygguf.tools.eval.tasks import string_match_all, string_match_part


@pytest.mark.parametrize(
    "pred, references, expected",
    [
        ("The numbers are 12 and 34.", ["12", "34", "56", "78"], 0.5),
        ("QUIET", ["quiet"], 1.0),
        ("", ["a"], 0.0),
        ("1234567", ["234"], 1.0),  # containment, not equality: RULER's
    ],
)
def test_string_match_all_is_the_share_of_references_contained(
    pred: str, references: list[str], expected: float
) -> None:
    assert string_match_all(pred, references) == expected


def test_string_match_part_is_one_when_any_reference_is_contained() -> None:
    assert string_match_part("It was in PORTO.", ["Oslo", "porto"]) == 1.0
    assert string_match_part("It was in Rome.", ["Oslo", "porto"]) == 0.0


def test_normalizing_drops_case_punctuation_and_articles() -> None:
    assert longbench.normalize_answer("  The Cat, a dog & an Owl! ") == "cat dog owl"
    assert longbench.normalize_zh_answer("「 红楼梦 」，Ａ b!") == "红楼梦ａb"
    assert longbench.normalize_zh_answer("《红楼梦》") == "《红楼梦"  # LongBench's list has no 《


@pytest.mark.parametrize(
    "pred, truth, expected",
    [
        ("The cat sat", "a cat sat down", 0.8),  # 2 shared, precision 2/2, recall 2/3: 2*1*(2/3)/(5/3)
        ("dog", "cat", 0.0),
        ("the", "cat", 0.0),  # nothing is left of the answer
        ("cat cat", "cat", 2 / 3),  # multisets: precision 1/2, recall 1
    ],
)
def test_f1_counts_shared_words_of_the_normalised_answers(pred: str, truth: str, expected: float) -> None:
    assert longbench.f1(pred, truth) == pytest.approx(expected)


def test_f1_zh_counts_the_words_that_jieba_finds() -> None:
    pytest.importorskip("jieba", reason="the extra [eval] is not installed")
    assert longbench.f1_zh("我来到北京，清华大学。", "我来到北京清华大学") == pytest.approx(1.0)
    assert longbench.f1_zh("上海", "北京") == 0.0
    assert longbench.f1_zh("北京 上海", "北京") == pytest.approx(2 / 3)  # precision 1/2, recall 1


def test_rouge_l_is_the_f_of_the_longest_common_subsequence() -> None:
    pytest.importorskip("rouge", reason="the extra [eval] is not installed")
    # LCS of "a b c d" and "a c d e" is 3: precision 3/4, recall 3/4
    assert longbench.rouge_l("a b c d", "a c d e") == pytest.approx(0.75, abs=1e-6)
    # LCS 2, of 2 words said and 4 expected: precision 1, recall 1/2, F 2/3
    assert longbench.rouge_l("the cat", "the cat sat down") == pytest.approx(2 / 3, abs=1e-6)


def test_rouge_l_of_an_empty_answer_is_zero() -> None:
    pytest.importorskip("rouge", reason="the extra [eval] is not installed")
    assert longbench.rouge_l("", "the cat") == 0.0
    assert longbench.rouge_l("...", "the cat") == 0.0


def test_rouge_l_zh_counts_the_words_that_jieba_finds() -> None:
    pytest.importorskip("rouge", reason="the extra [eval] is not installed")
    pytest.importorskip("jieba", reason="the extra [eval] is not installed")
    assert longbench.rouge_l_zh("北京 大学", "北京 大学") == pytest.approx(1.0, abs=1e-6)
    assert longbench.rouge_l("北京大学", "北京 大学") == 0.0  # without words there is nothing in common


def test_classification_shares_its_point_among_the_classes_named() -> None:
    classes = ["Food", "Animal", "Other animal"]
    assert longbench.classification("Food", "Food", classes) == 1.0
    assert longbench.classification("Food or Animal", "Food", classes) == 0.5
    assert longbench.classification("Animal", "Food", classes) == 0.0
    assert longbench.classification("nothing", "Food", classes) == 0.0


def test_classification_drops_classes_that_are_a_part_of_the_right_one() -> None:
    assert longbench.classification("Other animal", "Other animal", ["animal", "Other animal"]) == 1.0


def test_classification_keeps_the_class_after_a_dropped_one_as_longbench_does() -> None:
    # "a" is dropped while the list is walked, so "b" is not looked at: two classes stay where one should
    assert longbench.classification("a b", "a b", ["a", "b", "a b"]) == 0.5


def test_retrieval_is_the_share_of_numbers_that_name_the_paragraph() -> None:
    assert longbench.retrieval("Paragraph 12", "Paragraph 12") == 1.0
    assert longbench.retrieval("Paragraph 12 or 3", "Paragraph 12") == 0.5
    assert longbench.retrieval("Paragraph 1", "Paragraph 12") == 0.0
    assert longbench.retrieval("none", "Paragraph 12") == 0.0
    assert longbench.retrieval_zh("段落7", "段落7") == 1.0
    with pytest.raises(ValueError, match="expected a number"):
        longbench.retrieval("1", "no number")


def test_count_is_the_share_of_numbers_that_are_right() -> None:
    assert longbench.count("There are 8 of 20, so 8.", "8") == pytest.approx(2 / 3)
    assert longbench.count("eight", "8") == 0.0


def test_code_similarity_looks_at_the_first_line_of_code() -> None:
    pytest.importorskip("rapidfuzz", reason="the extra [eval] is not installed")
    assert longbench.code_similarity("\n```python\n# add\nx = 1\ny = 2", "x = 1") == 1.0
    # "abcd" and "abce": 3 of 4 in common, 2 * 3 / 8 = 0.75
    assert longbench.code_similarity("abcd", "abce") == 0.75
    assert longbench.code_similarity("abc", "abcd") == 0.86  # 6 / 7 = 0.857, rounded as fuzzywuzzy does
    assert longbench.code_similarity("# only a comment", "x = 1") == 0.0


def test_a_missing_library_is_one_line_with_the_extra() -> None:
    with pytest.raises(ImportError, match=r"^no_such_library is not installed: pip install 'lazygguf\[eval\]'$"):
        longbench.require_extra("eval", ["re", "no_such_library"])
