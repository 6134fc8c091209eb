"""``lazygguf chat`` and files of conversations: --session, /save and /load."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_chat import FakeModel, asked, chat, typed

from lazygguf.files.block_file import MAGIC


def test_a_session_is_saved_at_the_end_and_goes_on_in_the_next_chat(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "a b.session")
    typed(monkeypatch, "one")
    assert chat("--session", path, "-sys", "Be short.") == 0
    typed(monkeypatch, "two")
    assert chat("--session", path) == 0
    assert [turn["content"] for turn in asked()] == ["Be short.", "one", "It is 42.", "two"]
    assert "goes on after 2 messages" in capsys.readouterr().err


def test_a_system_prompt_on_the_command_line_takes_the_saved_ones_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = str(tmp_path / "session")
    chat("--session", path, "-sys", "Be short.", "-p", "one", "-st")
    chat("--session", path, "-sys", "Be odd.", "-p", "two", "-st")
    assert [turn["content"] for turn in asked()] == ["Be odd.", "one", "It is 42.", "two"]


def test_a_session_is_saved_when_an_answer_is_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "session"
    monkeypatch.setattr(FakeModel, "error", KeyboardInterrupt())
    assert chat("--session", str(path), "-p", "one", "-st") == 130
    assert b"It is " in path.read_bytes()


def test_a_session_that_did_not_change_is_not_written_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = str(tmp_path / "session")
    typed(monkeypatch, "/bye")
    chat("--session", path)
    assert not Path(path).exists()
    chat("--session", path, "-p", "one", "-st")
    typed(monkeypatch, "/bye")
    chat("--session", path)
    assert FakeModel.made[-1].saved == []


def test_save_and_load_keep_a_conversation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "with space"
    typed(monkeypatch, "one", f"/save {path}", "/clear", "other", f"/load {path}", "two", "/save", "/load")
    assert chat() == 0
    assert [turn["content"] for turn in asked()] == ["one", "It is 42.", "two"]
    said = capsys.readouterr().err
    assert "/save needs the name of a file" in said and "/load needs a file" in said


@pytest.mark.parametrize("extra", ["null", "[]", "{}", '{"chat": {"messages": [{"role": "user"}]}}', '{"chat": 3}'])
def test_a_session_without_a_conversation_is_refused_and_this_one_goes_on(
    extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "session"
    path.write_bytes(MAGIC + extra.encode())
    typed(monkeypatch, "one", f"/load {path}", "two")
    chat()
    assert [turn["content"] for turn in asked()] == ["one", "It is 42.", "two"]
    assert "was not saved by a chat" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["missing/session", "document.txt", "."])
def test_a_name_under_which_nothing_can_be_saved_is_an_error_before_anything_is_asked(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "document.txt").write_text("kept", encoding="utf-8")
    assert chat("--session", str(tmp_path / name), "-p", "one", "-st") == 1
    assert FakeModel.made[-1].asked == []
    assert (tmp_path / "document.txt").read_text(encoding="utf-8") == "kept"
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
