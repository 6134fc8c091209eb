"""``lazygguf chat`` as a conversation: turns, commands, Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_chat import FakeModel, asked, chat, typed

import lazygguf.cli.chat
from lazygguf import Stats
from lazygguf.errors import ContextFullError


def test_a_conversation_sends_all_turns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    typed(monkeypatch, "one", "", "two", "/bye")
    assert chat() == 0
    assert [turn["content"] for turn in asked()] == ["one", "It is 42.", "two"]
    assert capsys.readouterr().out == "It is 42.\nIt is 42.\n"  # the prompt is not on a stdout that is no terminal


def test_the_end_of_input_ends_the_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "one")
    assert chat() == 0


def test_a_question_on_the_command_line_is_answered_before_the_first_prompt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    typed(monkeypatch, "two")
    chat("-p", "one")
    assert [turn["content"] for turn in asked()] == ["one", "It is 42.", "two"]


def test_a_document_waits_for_the_first_question(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "doc").write_text("document", encoding="utf-8")
    typed(monkeypatch, "one", "two")
    chat("-f", str(tmp_path / "doc"))
    assert [turn["content"] for turn in asked()] == ["document\n\none", "It is 42.", "two"]


def test_several_lines_are_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "a\\", "b", '"""c', "d", 'e"""', '"""', "f", '"""')
    chat()
    assert [turn["content"] for turn in asked() if turn["role"] == "user"] == ["a\nb", "c\nd\ne", "f"]


def test_read_puts_a_text_before_the_next_question(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "doc").write_text("document", encoding="utf-8")
    typed(monkeypatch, f"/read {tmp_path / 'doc'}", "one")
    chat()
    assert asked()[-1]["content"] == "document\n\none"


def test_regen_asks_the_last_question_again(monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "one", "/regen")
    chat()
    assert asked() == [{"role": "user", "content": "one"}]
    assert len(FakeModel.made[-1].asked) == 2


def test_clear_begins_anew_with_the_system_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "one", "/clear", "two")
    chat("-sys", "Be short.")
    assert [turn["content"] for turn in asked()] == ["Be short.", "two"]
    assert FakeModel.made[-1].n_resets == 1


def test_set_and_system_change_the_next_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, "/set temp 0.7", "/set n_predict=5", "/set --top-k 3", "/system Be odd.", "one", "/set")
    chat()
    settings = FakeModel.made[-1].settings[-1]
    assert (settings["temperature"], settings["max_tokens"], settings["top_k"]) == (0.7, 5, 3)
    assert asked()[0]["content"] == "Be odd."
    assert "temp 0.7" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/set temp hot", "temp is 'hot', expected a number"),
        ("/set temp inf", "temperature is inf"),
        ("/set tmp 1", "unknown setting 'tmp', did you mean 'temp'?"),
        ("/regne", "unknown command /regne, did you mean 'regen'?"),
        ("/regen", "nothing was asked yet"),
        ("/read", "/read needs a file"),
        ("/read /nowhere/x", "/nowhere/x: No such file or directory"),
        ("/help", "/clear"),
        ("/?", "/clear"),
        ("/stats", "token_share"),
    ],
)
def test_a_command_says_what_is_wrong_and_the_conversation_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, said: str
) -> None:
    typed(monkeypatch, line, "one")
    assert chat() == 0
    assert said in capsys.readouterr().err
    assert asked()[-1]["content"] == "one"


def test_stats_before_any_answer_are_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Fresh(FakeModel):
        @property
        def stats(self) -> Stats:
            return Stats()

        @stats.setter
        def stats(self, stats: Stats) -> None:
            pass

    monkeypatch.setattr(lazygguf.cli.chat, "LazyModel", Fresh)
    typed(monkeypatch, "/stats")
    assert chat() == 0
    said = capsys.readouterr().err
    assert "nothing was answered yet" in said and "token_share" not in said


def test_an_interrupted_answer_stays_a_turn_and_the_conversation_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class InterruptedOnce(FakeModel):
        def _chunks(self) -> Iterator[dict[str, Any]]:
            self.error = KeyboardInterrupt() if len(self.asked) == 1 else None
            return super()._chunks()

    monkeypatch.setattr(lazygguf.cli.chat, "LazyModel", InterruptedOnce)
    typed(monkeypatch, "one", "two")
    assert chat() == 0
    assert [turn["content"] for turn in asked()] == ["one", "It is ", "two"]
    assert "(stopped)" in capsys.readouterr().err


def test_a_question_that_fails_without_an_answer_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class FailsOnce(FakeModel):
        def create_chat_completion(self, messages: Any, **options: Any) -> Iterator[dict[str, Any]]:
            chunks = super().create_chat_completion(messages, **options)
            if len(self.asked) == 1:
                raise ContextFullError("Requested tokens (9) exceed context window of 8")
            return chunks

    monkeypatch.setattr(lazygguf.cli.chat, "LazyModel", FailsOnce)
    typed(monkeypatch, "one", "two")
    assert chat() == 0
    assert [turn["content"] for turn in asked()] == ["two"]


def test_control_characters_do_not_reach_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FakeModel, "answer", ["a\x1b[31m\tb\n\x9b"])
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    chat("-p", "q")
    assert capsys.readouterr().out == "a\ufffd[31m\tb\n\ufffd\n"
