"""``lazygguf quantize``: llama.cpp's own result, options that act, bad input that stops before the work."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import gguf
import numpy as np
import pytest
from convert.tiny_checkpoints import Spec, write_hf
from gguf import GGUFReader
from lazygguf.tools.quantize import command as quantize_module
from lazygguf.tools.quantize.quant_types import ALIASES, QUANT_TYPES, quant_type
from tiny_gguf import TinyConfig, write_tiny_gguf

from lazygguf._ffi import NativeFile
from lazygguf.errors import LazyError, ModelFileError, UnsupportedModelError

Tool = Callable[..., int]
WIDE = TinyConfig(n_embd=256, n_ff=512, n_layer=2, n_vocab=320)
NEEDS_IMATRIX = {"IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ1_S", "IQ1_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quantize") / "f32.gguf"
    write_tiny_gguf(path, WIDE)
    return path


def types(path: Path) -> dict[str, str]:
    with NativeFile(path) as file:  # the gguf package does not know the newest types
        return {t.name: t.type_name for t in file.tensors}


def write_imatrix(path: Path, model: Path, form: str) -> None:
    """Ones for every matrix, in one of the two forms."""
    names = {t.name: int(t.shape[0]) for t in GGUFReader(model).tensors if len(t.shape) > 1}
    if form == "gguf":
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_type("imatrix")
        for name, n in names.items():
            writer.add_tensor(name + ".in_sum2", np.full((1, n), 8.0, np.float32))
            writer.add_tensor(name + ".counts", np.full((1, 1), 8.0, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return
    data = struct.pack("<i", len(names))
    for name, n in names.items():
        data += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", 4, n)
        data += np.full(n, 4.0, np.float32).tobytes()
    path.write_bytes(data)


@pytest.mark.parametrize("name", sorted([*QUANT_TYPES, *ALIASES]))
def test_every_type_of_llama_cpp_is_made(name: str, model: Path, tmp_path: Path, quantize: Tool) -> None:
    out, more = tmp_path / "out.gguf", []
    if name in NEEDS_IMATRIX:
        with pytest.raises(UnsupportedModelError, match="imatrix"):
            quantize(model, out, name)
        assert not out.exists()
        write_imatrix(tmp_path / "imatrix", model, "gguf")
        more = ["--imatrix", tmp_path / "imatrix"]
    assert quantize(model, out, name.lower(), *more) == 0
    with NativeFile(out) as file:
        assert file.metadata["general.file_type"] == quant_type(name).ftype
    assert types(out).keys() == types(model).keys()


def test_the_result_is_that_of_llama_cpp_called_directly(model: Path, tmp_path: Path, quantize: Tool) -> None:
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M
    direct, out = tmp_path / "direct.gguf", tmp_path / "out.gguf"
    assert llama_cpp.llama_model_quantize(str(model).encode(), str(direct).encode(), params) == 0
    quantize(model, out, "Q4_K_M")
    assert out.read_bytes() == direct.read_bytes()


def test_pure_gives_every_matrix_the_type(model: Path, tmp_path: Path, quantize: Tool) -> None:
    quantize(model, tmp_path / "mixed.gguf", "Q4_K_M")
    quantize(model, tmp_path / "pure.gguf", "Q4_K_M", "--pure")
    assert "Q6_K" in types(tmp_path / "mixed.gguf").values()
    assert set(types(tmp_path / "pure.gguf").values()) == {"Q4_K", "F32"}


def test_the_output_and_embedding_types_can_be_chosen(model: Path, tmp_path: Path, quantize: Tool) -> None:
    chosen = ["--output-tensor-type", "q8_0", "--token-embedding-type", "F16"]
    quantize(model, tmp_path / "out.gguf", "Q4_K_M", *chosen)
    found = types(tmp_path / "out.gguf")
    assert (found["output.weight"], found["token_embd.weight"]) == ("Q8_0", "F16")
    quantize(model, tmp_path / "left.gguf", "Q4_K_M", "--leave-output-tensor")
    assert types(tmp_path / "left.gguf")["output.weight"] == "F32"


def test_copy_keeps_every_tensor(model: Path, tmp_path: Path, quantize: Tool) -> None:
    quantize(model, tmp_path / "out.gguf", "copy")
    assert types(tmp_path / "out.gguf") == types(model)


def test_a_quantized_input_needs_allow_requantize(model: Path, tmp_path: Path, quantize: Tool) -> None:
    quantize(model, tmp_path / "q8.gguf", "Q8_0")
    with pytest.raises(UnsupportedModelError, match=r"requantizing from type q8_0.*--allow-requantize"):
        quantize(tmp_path / "q8.gguf", tmp_path / "q4.gguf", "Q4_0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["q8.gguf"]
    assert quantize(tmp_path / "q8.gguf", tmp_path / "q4.gguf", "Q4_0", "--allow-requantize") == 0


@pytest.mark.parametrize("form", ["gguf", "binary"])
def test_an_importance_matrix_of_either_form_changes_the_result(
    form: str, model: Path, tmp_path: Path, quantize: Tool
) -> None:
    write_imatrix(tmp_path / "imatrix", model, form)
    quantize(model, tmp_path / "plain.gguf", "Q4_K_S")
    quantize(model, tmp_path / "weighed.gguf", "Q4_K_S", "--imatrix", tmp_path / "imatrix")
    assert (tmp_path / "plain.gguf").read_bytes() != (tmp_path / "weighed.gguf").read_bytes()


def test_both_forms_of_an_importance_matrix_mean_the_same(model: Path, tmp_path: Path) -> None:
    from lazygguf.tools.quantize.imatrix_file import read_imatrix

    for form in ("gguf", "binary"):
        write_imatrix(tmp_path / form, model, form)
    a, b = read_imatrix(tmp_path / "gguf"), read_imatrix(tmp_path / "binary")
    assert a.keys() == b.keys()
    assert all(np.array_equal(values, b[name]) and values[0] == 1.0 for name, values in a.items())


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "NaN", "negative length"])
def test_a_damaged_importance_matrix_is_refused(damage: str, model: Path, tmp_path: Path, quantize: Tool) -> None:
    path = tmp_path / "imatrix"
    write_imatrix(path, model, "binary")
    data = path.read_bytes()
    name = struct.pack("<i", 1) + b"\xff\xff\xff\xff"
    nan = struct.pack("<i", 1) + struct.pack("<i", 1) + b"a" + struct.pack("<iif", 1, 1, float("nan"))
    path.write_bytes(
        {"empty": b"", "cut": data[:-5], "text": b"hello world", "NaN": nan, "negative length": name}[damage]
    )
    with pytest.raises(ModelFileError, match="imatrix"):
        quantize(model, tmp_path / "out.gguf", "Q4_K_M", "--imatrix", path)
    assert not (tmp_path / "out.gguf").exists()


def test_a_dry_run_tells_the_size_and_writes_nothing(
    model: Path, tmp_path: Path, quantize: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quantize(model, tmp_path / "out.gguf", "Q4_K_M", "--dry-run") == 0
    told = capsys.readouterr().err
    assert "bits a weight" in told
    assert list(tmp_path.iterdir()) == []
    quantize(model, tmp_path / "out.gguf", "IQ2_XXS", "--dry-run")
    assert "imatrix" in capsys.readouterr().err


def test_progress_goes_over_all_tensors(model: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    options = quantize_module.QuantizeOptions(quant_type("Q4_0").ftype)
    result = quantize_module.run_quantizer(model, tmp_path / "out.gguf", options, lambda *step: steps.append(step))
    n = len(types(model))
    assert steps == [(i + 1, n) for i in range(n)]
    assert 4.0 < result.bits < 8.0
    assert result.n_bytes == pytest.approx((tmp_path / "out.gguf").stat().st_size, rel=0.1)


def test_a_wrong_type_names_the_nearest(model: Path, tmp_path: Path, quantize: Tool) -> None:
    with pytest.raises(ValueError, match=r"quantization type 'Q4_KM' is not known; .*Q4_K_M"):
        quantize(model, tmp_path / "out.gguf", "Q4_KM")
    with pytest.raises(ValueError, match=r"tensor type 'q6k' is not known; .*Q6_K"):
        quantize(model, tmp_path / "out.gguf", "Q4_0", "--output-tensor-type", "q6k")
    with pytest.raises(ValueError, match="--threads -1"):
        quantize(model, tmp_path / "out.gguf", "Q4_0", "-t", "-1")


def test_input_and_output_are_checked_before_the_work(model: Path, tmp_path: Path, quantize: Tool) -> None:
    out = tmp_path / "out.gguf"
    with pytest.raises(FileNotFoundError):
        quantize(tmp_path / "nowhere.gguf", out, "Q4_0")
    whole = model.read_bytes()
    for cut in (0, 10, 1000, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.gguf").write_bytes(whole[:cut])
        with pytest.raises(LazyError):
            quantize(tmp_path / "cut.gguf", out, "Q4_0")
    with pytest.raises(ValueError, match="the output is the input"):
        quantize(model, model, "Q4_0", "--force")
    assert model.read_bytes() == whole
    out.write_bytes(b"GGUF")
    with pytest.raises(FileExistsError, match="--force"):
        quantize(model, out, "Q4_0")
    assert out.read_bytes() == b"GGUF"
    assert quantize(model, out, "Q4_0", "--force") == 0


def test_ctrl_c_ends_the_worker_and_leaves_nothing(
    model: Path, tmp_path: Path, quantize: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers: list[Any] = []
    popen = quantize_module.subprocess.Popen

    def remember(*args: Any, **kwargs: Any) -> Any:
        workers.append(popen(*args, **kwargs))
        return workers[-1]

    @contextlib.contextmanager
    def interrupting(*_: Any) -> Iterator[Callable[..., None]]:
        def step(*_: int) -> None:
            raise KeyboardInterrupt

        yield step

    monkeypatch.setattr(quantize_module.subprocess, "Popen", remember)
    monkeypatch.setattr(quantize_module, "step_bar", interrupting)
    with pytest.raises(KeyboardInterrupt):
        quantize(model, tmp_path / "out.gguf", "Q4_K_M")
    assert len(workers) == 2
    assert all(worker.poll() is not None for worker in workers)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_dies_is_reported(
    model: Path, tmp_path: Path, quantize: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when ggml aborts: the parent lives, says so and leaves nothing."""
    popen = quantize_module.subprocess.Popen

    def dying(command: list[str], **kwargs: Any) -> Any:
        return popen([command[0], "-c", "import os; os.abort()"], **kwargs)

    monkeypatch.setattr(quantize_module.subprocess, "Popen", dying)
    with pytest.raises(LazyError, match=r"quantizer died .signal SIGABRT"):
        quantize(model, tmp_path / "out.gguf", "Q4_K_M")
    assert list(tmp_path.iterdir()) == []


def test_convert_quantizes_in_one_command(tmp_path: Path, convert: Tool, quantize: Tool) -> None:
    folder = write_hf(tmp_path / "hf", Spec(n_embd=256, n_ff=256, n_head=4))
    convert(folder, "--outfile", tmp_path / "one.gguf", "--quantize", "q4_k_m", "--outtype", "f16")
    convert(folder, "--outfile", tmp_path / "f16.gguf", "--outtype", "f16")
    quantize(tmp_path / "f16.gguf", tmp_path / "two.gguf", "Q4_K_M")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f16.gguf", "hf", "one.gguf", "two.gguf"]


def limited(tool: str, *arguments: object, n_bytes: int) -> subprocess.CompletedProcess[str]:
    """The command line in a process whose files may not grow beyond n_bytes."""
    resource = pytest.importorskip("resource")
    command = [sys.executable, "-P", "-m", "lazygguf", tool, *map(str, arguments)]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))  # noqa: E731
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, cwd="/", timeout=300)


def test_a_disk_that_is_full_is_not_called_an_unsupported_model(model: Path, tmp_path: Path) -> None:
    done = limited("quantize", model, tmp_path / "out.gguf", "Q8_0", n_bytes=200_000)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == f"lazygguf: error: {tmp_path}: File too large, while the model was quantized"
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_while_quantizing_says_no_space_left(
    model: Path, small_disk: Path, quantize: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize_module, "check_space", lambda *_: None)
    with pytest.raises(OSError, match="No space left on device, while the model was quantized") as caught:
        quantize(model, small_disk / "out.gguf", "Q8_0")
    assert caught.value.errno == errno.ENOSPC
    assert list(small_disk.iterdir()) == []


def test_the_line_that_runs_the_result_is_quoted(
    model: Path, tmp_path: Path, quantize: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    quantize(model, tmp_path / "a b;c.gguf", "Q8_0")
    assert capsys.readouterr().out == f"lazygguf chat -m '{tmp_path}/a b;c.gguf'\n"


def test_what_a_killed_run_has_left_is_named_by_the_next_one(
    model: Path, tmp_path: Path, quantize: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = tmp_path / f".out.gguf.{gone.pid}.tmp"
    others = [tmp_path / f".out.gguf.{os.getpid()}.tmp", tmp_path / ".out.gguf.tmp", tmp_path / f".x.{gone.pid}.tmp"]
    for path in (left, *others):
        path.write_bytes(b"GGUF")
    quantize(model, tmp_path / "out.gguf", "Q8_0")
    notes = [line for line in capsys.readouterr().err.splitlines() if "is left from" in line]
    assert notes == [f"note: {left} (4 bytes) is left from a run that was killed; it can be deleted"]
    assert left.exists()


def test_a_killed_run_leaves_nothing_but_a_file_named_tmp(model: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal; from convert.conftest import parse_and_run;"
        "from lazygguf.tools.quantize import command;"
        "command.check_written = lambda path: os.kill(os.getpid(), signal.SIGKILL);"
        f"parse_and_run('quantize', {str(model)!r}, {str(tmp_path / 'out.gguf')!r}, 'Q8_0')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd="/", capture_output=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [path.suffix for path in tmp_path.iterdir()] == [".tmp"]
