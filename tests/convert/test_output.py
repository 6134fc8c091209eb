"""The output exists whole or not at all: full disks, Ctrl-C, existing files; and what is printed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from convert.gguf_to_hf import fields
from convert.measure_convert import write_checkpoint
from convert.tiny_checkpoints import Spec, write_hf, write_meta
from gguf import GGUFReader
from lazygguf.tools.convert import command as convert_module
from lazygguf.tools.convert import writer as gguf_output

from lazygguf.errors import LazyError, ModelFileError

Convert = Callable[..., int]


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    return write_hf(tmp_path / "hf", Spec())


def listing(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def test_the_result_is_announced_and_the_line_that_runs_it_is_printed(
    folder: Path, tmp_path: Path, convert: Convert, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a b.gguf"
    convert(folder, "--outfile", out)
    printed = capsys.readouterr()
    assert printed.out == f"lazygguf chat -m '{out}'\n"
    assert "llama, 2 layers" in printed.err
    assert "400 tokens" in printed.err
    assert "chat template" not in printed.err


def test_a_folder_without_a_chat_template_is_noted(
    folder: Path, tmp_path: Path, convert: Convert, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "tokenizer_config.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({key: value for key, value in said.items() if key != "chat_template"}), encoding="utf-8")
    convert(folder, "--outfile", tmp_path / "out.gguf")
    assert "note: the folder has no chat template: chat needs one, by --chat-template" in capsys.readouterr().err


def test_a_dry_run_checks_all_and_writes_nothing(
    folder: Path, convert: Convert, capsys: pytest.CaptureFixture[str]
) -> None:
    before = listing(folder)
    assert convert(folder, "--dry-run", "--quantize", "Q4_K_M") == 0
    assert listing(folder) == before
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Q4_K_M, about" in printed.err
    (folder / "tokenizer.model").unlink()
    with pytest.raises(ModelFileError, match="tokenizer"):
        convert(folder, "--dry-run")


def test_the_announced_size_is_the_size(folder: Path, tmp_path: Path, convert: Convert) -> None:
    plan = convert_module.make_plan(folder, None, None, None, False)
    for outtype in ("f32", "f16", "bf16", "q8_0"):
        expected = gguf_output.header_bytes(plan) + gguf_output.data_bytes(plan, outtype)
        convert(folder, "--outfile", tmp_path / "out.gguf", "--outtype", outtype, "--force")
        size = (tmp_path / "out.gguf").stat().st_size
        assert size <= expected <= size + 16384


def test_without_outfile_the_name_tells_the_model_and_the_type(tmp_path: Path, convert: Convert) -> None:
    folder = write_hf(tmp_path / "Tiny-Llama-2-chat", Spec(), dtype="BF16")
    convert(folder)
    convert(folder, "--outtype", "q8_0", "--name", "My Model")
    names = sorted(path.name for path in folder.glob("*.gguf"))
    assert names == ["My-Model-113K-Q8_0.gguf", "Tiny-Llama-2-113K-chat-BF16.gguf"]
    assert fields(GGUFReader(folder / names[0]))["general.name"] == "My Model"


def test_ftype_in_the_name_becomes_the_type(folder: Path, tmp_path: Path, convert: Convert) -> None:
    for template in ("{x}-{ftype}.gguf", "{FTYPE}.gguf"):
        convert(folder, "--outfile", tmp_path / template, "--outtype", "bf16")
    assert sorted(path.name for path in tmp_path.glob("*.gguf")) == ["BF16.gguf", "{x}-bf16.gguf"]


@pytest.mark.parametrize(("dtype", "expected"), [("BF16", "BF16"), ("F16", "F16"), ("F32", "F16")])
def test_auto_keeps_the_16_bit_type_of_the_checkpoint(
    dtype: str, expected: str, tmp_path: Path, convert: Convert
) -> None:
    write_hf(tmp_path, Spec(), dtype=dtype)
    convert(tmp_path, "--outfile", tmp_path / "out.gguf")
    types = {t.name: t.tensor_type.name for t in GGUFReader(tmp_path / "out.gguf").tensors}
    assert {kind for name, kind in types.items() if "norm" not in name} == {expected}
    assert {kind for name, kind in types.items() if "norm" in name} == {"F32"}


def test_rows_that_q8_0_does_not_fit_become_f16(tmp_path: Path, convert: Convert) -> None:
    write_hf(tmp_path, Spec(n_ff=80))
    convert(tmp_path, "--outfile", tmp_path / "out.gguf", "--outtype", "q8_0")
    types = {t.name: t.tensor_type.name for t in GGUFReader(tmp_path / "out.gguf").tensors}
    assert types["blk.0.ffn_down.weight"] == "F16"
    assert types["blk.0.ffn_up.weight"] == "Q8_0"


def test_an_existing_output_stays_unless_forced(folder: Path, tmp_path: Path, convert: Convert) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(b"GGUF and more")
    with pytest.raises(FileExistsError, match="--force replaces it"):
        convert(folder, "--outfile", out)
    assert out.read_bytes() == b"GGUF and more"
    convert(folder, "--outfile", out, "--force")
    assert out.stat().st_size > 100000


def test_force_never_replaces_what_is_no_gguf_file(folder: Path, convert: Convert) -> None:
    """Above all not the checkpoint itself."""
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="no GGUF file; it is not replaced"):
        convert(folder, "--outfile", folder / "model.safetensors", "--force")
    assert (folder / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("name", ["/dev/full", "/dev/null"])
def test_a_device_is_no_output(name: str, folder: Path, convert: Convert) -> None:
    if not Path(name).exists():
        pytest.skip(f"this system has no {name}")
    for more in ([], ["--force"]):
        with pytest.raises(OSError, match="no regular file"):
            convert(folder, "--outfile", name, *more)


def test_an_output_in_no_folder_or_that_is_a_folder_is_refused(folder: Path, tmp_path: Path, convert: Convert) -> None:
    with pytest.raises(FileNotFoundError, match="folder does not exist"):
        convert(folder, "--outfile", tmp_path / "nowhere" / "out.gguf")
    with pytest.raises(IsADirectoryError):
        convert(folder, "--outfile", tmp_path)


def test_too_little_disk_is_told_before_anything_is_written(
    folder: Path, tmp_path: Path, convert: Convert, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage: Any = type("Usage", (), {"free": 100_000})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    before = listing(tmp_path)
    with pytest.raises(OSError, match=r"KB are needed, 100\.0 KB are free"):
        convert(folder, "--outfile", tmp_path / "out.gguf")
    assert listing(tmp_path) == before


@pytest.mark.parametrize("more", [[], ["--quantize", "Q8_0"]], ids=["convert", "quantize"])
def test_a_disk_that_fills_up_while_writing_leaves_nothing(
    more: list[str], small_disk: Path, tmp_path: Path, convert: Convert, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_hf(tmp_path / "hf", Spec(n_vocab=400, n_layer=4))
    (small_disk / "out.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(convert_module, "check_space", lambda *_: None)
    with pytest.raises((OSError, LazyError)):
        convert(folder, "--outfile", small_disk / "out.gguf", "--outtype", "f16", "--force", *more)
    assert [path.name for path in small_disk.iterdir()] == ["out.gguf"]
    assert (small_disk / "out.gguf").read_bytes() == b"GGUF"


def test_a_file_size_limit_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("resource")
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000));"
        "from convert.conftest import parse_and_run; parse_and_run('convert', *sys.argv[1:])"
    )
    done = run_python(code, folder, "--outfile", tmp_path / "out.gguf")
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert not list(tmp_path.glob("*out.gguf*")) + list(tmp_path.glob(".*"))


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=300)


@contextlib.contextmanager
def interrupting(*_: Any) -> Iterator[Callable[..., None]]:
    """A progress bar whose third step is Ctrl-C."""
    steps = 0

    def step(*_: int) -> None:
        nonlocal steps
        steps += 1
        if steps == 3:
            raise KeyboardInterrupt

    yield step


@pytest.mark.parametrize("bar", ["byte_bar", "step_bar"])
def test_ctrl_c_leaves_nothing_and_an_existing_file_untouched(
    bar: str, folder: Path, tmp_path: Path, convert: Convert, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out.gguf").write_bytes(b"GGUF old")
    before = listing(tmp_path)
    monkeypatch.setattr(convert_module, bar, interrupting)
    with pytest.raises(KeyboardInterrupt):
        convert(folder, "--outfile", tmp_path / "out.gguf", "--force", "--quantize", "Q8_0")
    assert listing(tmp_path) == before
    assert (tmp_path / "out.gguf").read_bytes() == b"GGUF old"


def test_a_file_that_does_not_pass_the_loader_is_removed(
    folder: Path, tmp_path: Path, convert: Convert, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_output, "add_hparams", lambda *_: None)
    with pytest.raises(LazyError, match="does not pass the loader's check, so it was removed"):
        convert(folder, "--outfile", tmp_path / "out.gguf")
    assert not list(tmp_path.glob("*out.gguf*"))


def test_llama_cpp_opens_the_file_without_a_warning_about_keys(
    folder: Path, tmp_path: Path, convert: Convert, capfd: pytest.CaptureFixture[str]
) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    write_meta(tmp_path / "meta", Spec())
    write_hf(tmp_path / "qwen2", Spec(arch="qwen2"), tokenizer="qwen2")
    for source in (folder, tmp_path / "meta", tmp_path / "qwen2"):
        convert(source, "--outfile", tmp_path / "out.gguf", "--force")
        capfd.readouterr()
        llama_cpp.Llama(str(tmp_path / "out.gguf"), n_ctx=256, verbose=True)
        log = capfd.readouterr().err.lower()
        assert "llama_model_loader" in log
        for words in (
            "missing",
            "not found",
            "bad special",
            "default to",
            "unused tensor",
            "pre-tokenizer type",
        ):
            assert words not in log, [line for line in log.splitlines() if words in line]


def test_memory_stays_that_of_a_few_blocks(tmp_path: Path) -> None:
    """400 MB of BF16 become F16 in a process that never holds a quarter of it beyond its imports."""
    resource = pytest.importorskip("resource")
    del resource
    spec = Spec(n_vocab=100_000, n_embd=1024, n_head=16, n_head_kv=16, n_ff=1024, n_layer=1)
    write_checkpoint(tmp_path, spec, "BF16", random=False)
    code = (
        "import resource, sys; from convert.conftest import parse_and_run; import numpy, gguf, rich.progress;"
        "import lazygguf.tools.convert.command, lazygguf._ffi, sentencepiece;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "parse_and_run('convert', *sys.argv[1:]);"
        "print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    for outtype in ("f16", "bf16"):
        done = run_python(code, tmp_path, "--outfile", tmp_path / "out.gguf", "--outtype", outtype, "--force")
        assert done.returncode == 0, done.stderr
        before, after = map(int, done.stdout.splitlines()[-1].split())
        assert (tmp_path / "out.gguf").stat().st_size > 400_000_000
        assert after - before < 100_000  # KB
