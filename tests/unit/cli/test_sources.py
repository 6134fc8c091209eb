"""``lazygguf chat --sources``: what an answer leaned on, by file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

import pytest
from fake_chat import FakeModel, chat, typed

from lazygguf import Source
from lazygguf.cli.document import Document, Place


@pytest.fixture
def leans_on(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the fake model lean on a part of a message, by the newest chat."""

    def set_up(text: str, message: int = 0) -> None:
        def sources(self: FakeModel, n: int) -> list[Source]:
            if n < 1:
                raise ValueError(f"n is {n}, expected an integer in [1, 9]")
            content = self.asked[-1][message]["content"]
            start = content.index(text)
            line = content.count("\n", 0, start) + 1
            return [Source(start, start + len(text), text, 0.25, line, line + text.count("\n"), message)][:n]

        monkeypatch.setattr(FakeModel, "sources", sources, raising=False)

    return set_up


def write(path: Path, text: str) -> str:
    path.write_bytes(text.encode())
    return str(path)


def test_an_answer_names_file_and_lines(leans_on: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    leans_on("The gate\nis shut.")
    one = write(tmp_path / "one.txt", "\n\nFirst.\n")
    two = write(tmp_path / "two.txt", "\n\nTitle\r\n\r\nThe gate\r\nis shut.\r\n")
    assert chat("-f", one, "-f", two, "-p", "Open?", "--sources") == 0
    out, err = capsys.readouterr()
    assert out == "It is 42.\n"
    assert f"1. {two}, lines 5-6 (25%): The gate is shut." in err.replace("\n1.", "\n1.")


def test_without_the_option_nobody_asks(capsys: pytest.CaptureFixture[str]) -> None:
    assert chat("-p", "Open?", "--no-show-timings") == 0  # the fake model has no sources
    assert capsys.readouterr().err == ""


def test_json_has_them(leans_on: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    leans_on("shut")
    path = write(tmp_path / "a.txt", "a\n\nIt is shut.")
    assert chat("-f", path, "-p", "Open?", "--json", "--sources", "2") == 0
    out, err = capsys.readouterr()
    found = {"file": path, "turn": 1, "first_line": 3, "last_line": 3, "score": 0.25, "text": "shut"}
    assert json.loads(out)["sources"] == [found]
    assert "shut" not in err


def test_sources_of_the_last_answer_can_be_asked_for_later(
    leans_on: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    leans_on("shut", message=1)
    path = write(tmp_path / "a.txt", "a\n\nIt is shut.")
    typed(monkeypatch, f"/read {path}", "Open?", "And now?", "/sources", "/sources 0", "/sources x", "/sources 1")
    assert chat("-sys", "Be short.", "--no-show-timings") == 0
    err = capsys.readouterr().err
    assert err.count(f"1. {path}, line 3 (25%): shut") == 2
    assert "n is 0, expected an integer" in err
    assert "/sources x: expected a number of passages, such as /sources 5" in err


def test_what_was_typed_is_named_by_its_turn(
    leans_on: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leans_on("My dog is Rex.", message=2)
    typed(monkeypatch, "Hello", "My dog is Rex.", "Who is Rex?", "/sources")
    chat("--no-show-timings")
    assert "1. turn 2, line 1 (25%): My dog is Rex." in capsys.readouterr().err


def test_a_document_of_an_earlier_chat_is_not_taken_for_this_one(
    leans_on: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    leans_on("Who")
    path = write(tmp_path / "a.txt", "Who is it?")
    typed(monkeypatch, f"/read {path}", "one", "/clear", "Who?", "/sources")
    chat("--no-show-timings")
    assert "1. turn 1, line 1 (25%): Who" in capsys.readouterr().err


def test_a_system_prompt_that_was_set_later_does_not_move_the_lines(
    leans_on: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    leans_on("shut")
    path = write(tmp_path / "a.txt", "a\n\nIt is shut.")
    typed(monkeypatch, f"/read {path}", "Open?", "/system Be short.", "/sources")
    chat("--no-show-timings")
    assert f"1. {path}, line 3 (25%): shut" in capsys.readouterr().err


def test_before_an_answer_there_are_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def sources(self: FakeModel, n: int) -> list[Source]:
        raise RuntimeError("sources: there is no answer in the context")

    monkeypatch.setattr(FakeModel, "sources", sources, raising=False)
    typed(monkeypatch, "/sources", "Open?")
    assert chat("--no-show-timings") == 0
    out, err = capsys.readouterr()
    assert "error: nothing was answered yet" in err and out == "It is 42.\n"


def test_fewer_than_one_source_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert chat("-p", "Open?", "--sources", "0") != 0
    assert "--sources 0: expected 1 or more" in capsys.readouterr().err


# ---- documents -----------------------------------------------------------------------------------


def placed(document: Document, text: str) -> Optional[Place]:
    start = document.text.index(text)
    return document.place(start, start + len(text))


def test_lines_count_from_the_begin_of_each_file() -> None:
    files = Document.of_file("a", "\n\na1\n\na2").then(Document.of_file("b", "\nb1\nb2\n"))
    turn = files.asked("\nwho?\n")
    assert turn.text == "a1\n\na2\n\n\nb1\nb2\n\nwho?"
    assert placed(turn, "a1") == ("a", 3, 3)
    assert placed(turn, "a1\n\na2") == ("a", 3, 5)
    assert placed(turn, "b1\nb2") == ("b", 2, 3)
    assert placed(turn, "who") is None
    assert placed(turn, "a2\n\n\nb1") is None


def test_empty_documents_add_nothing() -> None:
    assert Document().asked("who?").text == "who?"
    assert Document.of_file("a", "\n \n").asked("who?").text == "who?"
    assert Document.of_file("a", "one").asked(" \n").text == "one"
    assert Document().asked("\n").text == ""
