"""What type checkers and editors see of ``LazyModel``, and that signatures, options and checks agree."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import lazygguf
from lazygguf import LazyModel
from lazygguf.model.options import ModelOptions

PROGRAM = """\
from lazygguf import KeepSchedule, LazyModel

with LazyModel("model.gguf", n_ctx=4096, keep=KeepSchedule.parse("10:0.3"), draft="small.gguf") as model:
    answer = model.create_chat_completion([{"role": "user", "content": "hi"}], temperature=0, stop=["x"])
    text: str = answer["choices"][0]["message"]["content"]
    n_tokens: int = answer["usage"]["total_tokens"]
    for chunk in model.create_chat_completion([{"role": "user", "content": "hi"}], stream=True, seed=1):
        text += chunk["choices"][0]["delta"].get("content", "")
    text += model.create_completion("Once", max_tokens=8, logprobs=2)["choices"][0]["text"]
    text += model("Once", echo=True)["choices"][0]["text"]
    for part in model.create_completion([1, 2, 3], stream=True):
        text += part["choices"][0]["text"]
    for token in model.generate([1, 2, 3], temp=0.0, top_k=3):
        n_tokens += token
"""


def check(tmp_path: Path, program: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path.parent / "mypy"), "program.py"]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=dict(os.environ), check=False)


def test_a_users_program_is_type_checked(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    done = check(tmp_path, PROGRAM)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = {
        'LazyModel("m.gguf", n_cxt=5)': "n_cxt",
        'LazyModel("m.gguf", n_ctx="5")': "expected",
        'LazyModel("m.gguf").create_completion("x", temprature=1)': "temprature",
        'LazyModel("m.gguf").create_completion("x", top_k="5")': "No overload variant",
        'LazyModel("m.gguf").create_chat_completion([], echo=True)': "echo",
        'LazyModel("m.gguf").create_completion("x")["choises"]': "choises",
        'LazyModel("m.gguf").create_completion("x", stream=True)["choices"]': "not indexable",
        'LazyModel("m.gguf").generate([1], temperatur=1.0)': "temperatur",
    }
    done = check(tmp_path, "from lazygguf import LazyModel\n\n" + "\n".join(wrong) + "\n")
    for line, (call, said) in enumerate(wrong.items(), start=3):
        messages = [text for text in done.stdout.splitlines() if text.startswith(f"program.py:{line}:")]
        assert any("error" in text and said in text for text in messages), f"{call}\n{done.stdout}"


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(lazygguf.__file__).parent / "py.typed").is_file()


def test_the_constructor_and_the_options_have_the_same_names_and_defaults() -> None:
    spelled = list(inspect.signature(LazyModel.__init__).parameters.values())[2:-1]  # without self, the path, refused
    taken = dict.fromkeys(("type_k", "type_v"), "Union[str, int, None]")  # the options hold the type's name then
    assert [(p.name, p.default, p.annotation) for p in spelled] == [
        (option.name, option.default, taken.get(option.name, option.type)) for option in fields(ModelOptions)
    ]
