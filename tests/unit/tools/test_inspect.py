"""``lazygguf inspect`` on tiny models: what it says, and when it says no."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from tiny_gguf import Kv, Tensor, TinyConfig, tiny_weights, write_changed, write_tiny_gguf

from lazygguf._ffi import isa, isa_names
from lazygguf.cli.main import main
from lazygguf.schedule.keep_schedule import KeepSchedule

GGUFValueType = pytest.importorskip("gguf").GGUFValueType
tool: Any = pytest.importorskip("lazygguf.tools.inspect", reason="lazygguf is not installed with its tools")

TinyModel = Callable[[TinyConfig], tuple[Path, Any]]


def text(value: str) -> Kv:
    return Kv(value, GGUFValueType.STRING)


def report_of(path: Path, **changes: Kv) -> dict[str, Any]:
    def override(kv: dict[str, Kv], tensors: Any) -> None:
        kv.update({key.replace("__", "."): value for key, value in changes.items()})

    write_tiny_gguf(path, TinyConfig(), overrides=override)
    return dict(tool.inspect(str(path)))


def test_a_model_is_described(tiny_model: TinyModel) -> None:
    config = TinyConfig()
    path, weights = tiny_model(config)
    report = tool.inspect(str(path), with_tensors=True)
    assert report["n_params"] == sum(values.size for values in weights.values())
    assert report["kv_bytes_per_token"] == 2 * 2 * config.n_layer * config.n_embd_kv
    assert (report["architecture"], report["n_ctx_train"]) == ("llama", 512)
    assert (report["supported"], report["reason"]) == (True, None)
    assert report["keep"] == f"{KeepSchedule.auto(config.n_layer)} (default, no profile)"
    assert {tensor["name"] for tensor in report["tensors"]} == weights.keys()
    assert sum(entry["count"] for entry in report["tensor_types"].values()) == len(weights)


def test_the_text_shortens_arrays_and_json_does_not(tiny_model: TinyModel, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tiny_model(TinyConfig())[0])
    assert main(["inspect", path]) == 0
    shown = capsys.readouterr().out
    assert "320 values" in shown and "supported     yes" in shown and "token_embd.weight" not in shown
    assert main(["inspect", path, "--tensors"]) == 0
    assert "token_embd.weight" in capsys.readouterr().out
    assert main(["inspect", path, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["metadata"]["tokenizer.ggml.tokens"]) == 320


def test_verbose_says_which_kernels_the_machine_runs(tiny_model: TinyModel, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tiny_model(TinyConfig())[0])
    assert main(["inspect", path]) == 0
    assert "kernels" not in capsys.readouterr().out
    assert main(["inspect", path, "-v"]) == 0
    assert f"kernels       {isa()} (of {', '.join(isa_names())})" in capsys.readouterr().out
    assert main(["inspect", path, "-v", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["machine"]["isa"] == isa()


def test_the_profile_in_a_file_is_what_auto_comes_to(tmp_path: Path) -> None:
    profile = KeepSchedule.parse("2:0.4")
    assert report_of(tmp_path / "a.gguf", lazygguf__profile=text(profile.to_json()))["keep"] == "2:0.4 (in the file)"
    assert "lazygguf.profile" in report_of(tmp_path / "b.gguf", lazygguf__profile=text("{"))["keep"]


def test_a_model_of_another_kind_is_described_with_the_reason_and_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.gguf"
    report = report_of(path, general__architecture=text("other\x1b[31m"))
    assert not report["supported"] and "llama" in report["reason"]
    assert main(["inspect", str(path)]) == 1
    assert "\x1b" not in capsys.readouterr().out


def test_a_file_that_is_no_model_is_an_error_of_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.gguf").write_text("hello", encoding="utf-8")
    assert main(["inspect", str(tmp_path / "a.gguf")]) == 1
    err = capsys.readouterr().err
    assert err.startswith("lazygguf: error:") and err.count("\n") == 1
    assert main(["inspect", str(tmp_path / "none.gguf")]) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_K"])
def test_check_tensors_names_weights_that_are_no_numbers(
    kind: str, bad: float, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = TinyConfig(n_embd=256, n_ff=256, n_head=4, n_layer=2)
    weights = tiny_weights(config)
    values = weights["blk.1.ffn_up.weight"]
    path = tmp_path / "model.gguf"
    wide, half = np.array([bad], np.float32), np.array([bad], np.float16)
    first = {"F32": wide.tobytes(), "BF16": wide.tobytes()[2:]}.get(kind, half.tobytes())  # of a block: its scale
    for is_bad in (False, True):
        tensor = Tensor.of(values, kind)
        if is_bad:
            data = bytearray(tensor.data.tobytes())
            data[: len(first)] = first
            changed = np.frombuffer(bytes(data), tensor.data.dtype).reshape(tensor.data.shape)
            tensor = tensor._replace(data=changed)
        write_changed(path, config, tensors={"blk.1.ffn_up.weight": tensor})
        capfd.readouterr()
        assert main(["inspect", str(path), "--check-tensors"]) == int(is_bad)
        shown = capfd.readouterr()
        assert ("NaN or infinite values in blk.1.ffn_up.weight" in shown.out) == is_bad
        assert ("all are numbers" in shown.out) != is_bad
        assert shown.err == ""
        assert tool.inspect(str(path), check_tensors=True)["not_finite"] == ["blk.1.ffn_up.weight"] * is_bad


def test_weights_are_not_read_unless_asked_for(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "model.gguf", TinyConfig())
    assert "not_finite" not in tool.inspect(str(tmp_path / "model.gguf"))
