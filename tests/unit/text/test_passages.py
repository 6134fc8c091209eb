"""Passages: what is cut where, and which are chosen."""

from __future__ import annotations

import numpy as np
import pytest

from lazygguf.text.passages import MAX_WORDS, Passage, best_passages, lines_of, n_words


def chosen(text: str, marked: str, n: int = 1, without: tuple[tuple[int, int], ...] = ()) -> list[str]:
    """The passages chosen where the marked words have the highest values."""
    values = np.full(len(text), 0.001)
    begin = text.index(marked)
    values[begin : begin + len(marked)] = 1.0
    return [text[found.start : found.end] for found in best_passages(text, values, n, without)]


def test_a_passage_is_whole_sentences_with_their_neighbours_up_to_sixty_words() -> None:
    sentences = [f"Sentence {i} has exactly ten words and so it ends." for i in range(20)]
    (passage,) = chosen(" ".join(sentences), "Sentence 9 ")
    assert n_words(passage) == MAX_WORDS
    assert passage.startswith("Sentence ") and passage.endswith("ends.") and sentences[9] in passage


def test_a_passage_does_not_cross_a_blank_line() -> None:
    text = "Before it.\n\nThe code is 7.\nIt opens the door.\n  \nBehind it."
    assert chosen(text, "code") == ["The code is 7.\nIt opens the door."]


def test_lines_of_code_stay_whole() -> None:
    lines = [f"    name_{i} = call_{i}(first, second)" for i in range(60)]
    (passage,) = chosen("\n".join(lines), "name_30 ")
    assert lines[30].strip() in passage
    assert all(line.strip() in [each.strip() for each in lines] for line in passage.split("\n"))


def test_prose_that_was_broken_for_its_length_is_cut_at_sentences() -> None:
    text = (
        "This is the first sentence of a text that somebody wrapped at some column and\n"
        "that ends here. The second one says that the key is 4711 and is wrapped as well,\n"
        "up to here. The third one ends the text."
    )
    long = " ".join(["Padding words come here."] * 20)
    found = chosen(f"{long} {text} {long}", "4711")[0]
    assert "The second one says that the key is 4711 and is wrapped as well,\nup to here." in found


@pytest.mark.parametrize("end", ["", "\n"], ids=["no line end", "line end"])
def test_lines_are_counted_from_one(end: str) -> None:
    text = f"first\n\nthird is it\nfourth{end}"
    assert lines_of(text, text.index("third"), text.index("fourth") + 6) == (3, 4)
    assert lines_of(text, 0, 5) == (1, 1)
    windows = text.replace("\n", "\r\n")
    assert lines_of(windows, windows.index("third"), windows.index("fourth") + 6) == (3, 4)


def test_a_line_end_inside_a_passage_does_not_count_where_it_ends_it() -> None:
    assert lines_of("one\ntwo\n", 0, 4) == (1, 1)


def test_what_is_left_out_is_in_no_passage_and_parts_passages() -> None:
    text = "One sentence is here. Who asks? Another sentence is here."
    begin = text.index("Who")
    asked = (begin, begin + len("Who asks?"))
    assert chosen(text, "Another", 3, (asked,)) == ["Another sentence is here.", "One sentence is here."]


def test_passages_come_best_first_and_do_not_overlap() -> None:
    text = "\n\n".join(f"Paragraph {i} says something." for i in range(6))
    values = np.full(len(text), 0.01)
    for i, value in ((4, 3.0), (1, 2.0), (3, 1.0)):
        values[text.index(f"Paragraph {i}")] = value
    found = best_passages(text, values, 3)
    assert [text[p.start : p.end][:11] for p in found] == ["Paragraph 4", "Paragraph 1", "Paragraph 3"]


def test_nothing_is_chosen_where_nothing_counts() -> None:
    assert best_passages("Some words.", np.zeros(11), 3) == []
    assert best_passages("", np.zeros(0), 3) == []
    assert best_passages(" \n\t\n ", np.ones(5), 3) == []


def test_abbreviations_do_not_end_a_sentence() -> None:
    filler = " ".join(["Other words stand here."] * 30)
    (found,) = chosen(f"{filler} It weighs approx. two tons, e.g. as much as a car. {filler}", "tons")
    assert "It weighs approx. two tons, e.g. as much as a car." in found


def test_a_long_line_without_sentences_is_cut_at_words() -> None:
    text = " ".join(f"word{i}" for i in range(500))
    (found,) = chosen(text, "word250")
    assert n_words(found) <= MAX_WORDS and "word250" in found.split()


def test_text_without_spaces_is_cut_too() -> None:
    (found,) = chosen("x" * 10_000 + "y" + "x" * 10_000, "y")
    assert "y" in found and len(found) <= 24 * MAX_WORDS
    (found,) = chosen("\u6c34\u306f\u9752\u3044\u3002" * 50 + "\u9375\u306f\u8d64\u3044\u3002", "\u9375")
    assert n_words(found) <= MAX_WORDS and "\u9375\u306f\u8d64\u3044\u3002" in found


def test_a_passage_has_its_highest_value() -> None:
    values = np.array([0.5, 0.25, 0.0, 0.25, 0, 0, 0, 0, 0, 0])
    assert best_passages("One.\n\nTwo.", values, 3) == [Passage(0, 4, 0.5)]
