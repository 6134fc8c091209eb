"""Where tokens lie in the texts that a caller gave, and which parts of them can be sources."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lazygguf.read.prompt import Prompt
from lazygguf.read.scores import PromptAttention
from lazygguf.text.asked import Asked
from lazygguf.text.given_text import character_spans, given_messages, given_prompt
from lazygguf.text.offsets import spans_of

LONG = "Some words of a document. " * 40


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def asking(content: str, *before: dict[str, Any]) -> list[str]:
    turns = [*before, user(content)]
    text = "".join(f"<{turn['role']}>{turn['content'].strip()}</>" for turn in turns)
    given = given_messages(turns, text)[-1]
    return [given.text[begin:end] for begin, end in given.asks]


def test_the_question_behind_a_document_asks() -> None:
    assert asking(f"{LONG}\n\nWhat is it?") == ["What is it?"]
    assert asking("A short text.\n \nWhat is it?\n") == ["What is it?"]
    assert asking("What is it?") == ["What is it?"]


def test_a_question_on_both_sides_asks_twice() -> None:
    assert asking(f"What is it?\n\n{LONG}\n\nWhat is it?") == ["What is it?", "What is it?"]


def test_of_an_earlier_turn_only_a_question_asks() -> None:
    turns = [user("My dog is called Rex."), user(f"{LONG}\n\nWho came?"), user("And when?")]
    text = "".join(f"<u>{turn['content']}" for turn in turns)
    given = given_messages(turns, text)
    assert [[part.text[a:b] for a, b in part.asks] for part in given] == [[], ["Who came?"], ["And when?"]]
    assert [part.message for part in given] == [0, 1, 2]


def test_system_prompts_and_answers_hold_no_sources() -> None:
    turns = [
        {"role": "system", "content": "Be short."},
        user("One."),
        {"role": "assistant", "content": "Two."},
        {"role": "tool", "content": "Three."},
        user("Four?"),
    ]
    text = " ".join(turn["content"] for turn in turns)
    assert [part.message for part in given_messages(turns, text)] == [1, 3, 4]


def test_a_message_that_the_template_changed_is_left_out() -> None:
    assert [part.message for part in given_messages([user("One."), user("Two.")], "<u>ONE.<u>Two.")] == [1]


def test_spaces_that_a_template_strips_count_in_the_message() -> None:
    content = "  \n the answer is seven \n\n who asks?"
    text = f"<user>{content.strip()}</user>"
    (given,) = given_messages([user(content)], text)
    values = given.peaks(
        np.ones(len(text), np.float32), np.stack([np.arange(len(text)), np.arange(1, len(text) + 1)], 1)
    )
    assert values.tolist() == [0.0] * 4 + [1.0] * (len(content) - 4)


@pytest.mark.parametrize(
    "text", ["plain", "a\u00e9\u6c34\U0001f600z", "\U0001f600", "x\ud83d\ude00y", "lone \ud800 one", ""]
)
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_tokens_cover_the_characters_of_which_they_hold_a_byte(text: str, size: int) -> None:
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    data = joined.encode()
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    spans = character_spans(text, spans_of(pieces))
    owner = [i for i, char in enumerate(joined) for _ in char.encode()]  # the character of each byte
    wide = [0]  # where a character of `joined` begins in `text`
    for char in joined:
        wide.append(wide[-1] + (2 if ord(char) > 0xFFFF and "\ud83d" in text else 1))
    for i, (begin, end) in enumerate(spans.tolist()):
        owned = owner[i * size : (i + 1) * size]
        assert (begin, end) == (wide[owned[0]], wide[owned[-1] + 1])
    empty = character_spans(text, np.array([[0, 0], [len(data), len(data)]]))
    assert (empty[:, 0] == empty[:, 1]).all()


def sources(prompt: str, marked: str, n: int = 3) -> list[Any]:
    data = prompt.encode()
    pieces = [data[i : i + 3] for i in range(0, len(data), 3)]
    attended = np.full(len(pieces), 0.001, np.float32)
    begin = data.index(marked.encode()) // 3
    attended[begin : begin + 2] = 1.0
    return Asked(Prompt(list(range(len(pieces)))), prompt).sources(PromptAttention(attended, 5), pieces, n)


@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("end", ["", "\n"], ids=["no final line end", "final line end"])
def test_a_source_is_a_part_of_the_prompt_with_its_lines(line_end: str, end: str) -> None:
    lines = ["H\u00f6rt, h\u00f6rt.", "", "\u6c34 is water.", "The gate opens at noon.", "", "It is late.", "", "When?"]
    prompt = line_end.join(lines) + end
    found = sources(prompt, "noon")
    assert found[0].text == f"\u6c34 is water.{line_end}The gate opens at noon."
    assert (found[0].first_line, found[0].last_line, found[0].message) == (3, 4, None)
    assert 0.5 < found[0].score <= 1
    assert found[0].score > found[1].score > 0
    for source in found:
        assert source.text == prompt[source.start : source.end]
        assert "When?" not in source.text


def test_tokens_without_a_text_are_read_as_the_text_that_they_are() -> None:
    pieces = [b"<s>", b"Water is \xe6", b"\xb0\xb4. ", b"The end.", b"\n\n", b"When?"]
    attended = np.array([9, 0.5, 0.5, 0, 0, 9], np.float32)
    (found,) = Asked(Prompt(range(6))).sources(PromptAttention(attended, 1), pieces, 1)
    assert found.text == "<s>Water is \u6c34. The end." and found.start == 0


def test_no_text_has_no_sources() -> None:
    assert given_prompt("").asks == ()
    assert Asked(Prompt([1]), "").sources(PromptAttention(np.ones(1, np.float32), 21), [b""], 3) == []


def test_what_a_question_attends_to_in_itself_lifts_no_passage() -> None:
    text = "The answer is here.\n\nThis stands beside it.\n\nWhat is the answer?"
    pieces = [text[i : i + 4].encode() for i in range(0, len(text), 4)]
    attended = np.array([0.1 if i * 4 < 20 else 0.01 if i * 4 < 45 else 1.0 for i in range(len(pieces))], np.float32)
    found = Asked(Prompt(range(len(pieces))), text).sources(PromptAttention(attended, 5), pieces, 3)
    assert [source.text for source in found] == ["The answer is here.", "This stands beside it."]
    assert found[0].score > found[1].score


def test_equal_scores_keep_the_order_of_the_text() -> None:
    text = "One is it.\n\nTwo is it.\n\nWhich?"
    attended = PromptAttention(np.ones(len(text), np.float32), 1)
    pieces = [char.encode() for char in text]
    found = Asked(Prompt(range(len(text))), text).sources(attended, pieces, 3)
    assert [source.text for source in found] == ["One is it.", "Two is it."]
