"""``lazygguf bench --peer ik``: another program in a process of its own, here a stand-in for its package."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from tiny_gguf import TinyConfig

from lazygguf.cli.main import EXIT_INTERRUPTED, main
from lazygguf.errors import Cancelled, LazyError

pytest.importorskip("lazygguf.tools.bench.command", reason="lazygguf is not installed with its tools")

from lazygguf.tools.bench.contenders import IK, LAZYGGUF, Contender
from lazygguf.tools.bench.engines import Settings
from lazygguf.tools.bench.measuring import peak_bytes
from lazygguf.tools.bench.peer import IK_MODULE, PeerProcess, find_ik
from lazygguf.tools.bench.records import isa_of
from lazygguf.tools.bench.text import Script

TinyModel = Callable[[TinyConfig], tuple[Path, Any]]
QUICK = ("-n", "2", "-r", "2", "-t", "1", "--weights", "as-is", "--keep", "off", "--no-memory")
N_VOCAB = 4

# What peer_ik.py calls of the wheel. It logs each call to the file in LOG and does what is said in ACT. Its logits are
# the sum of the tokens read, their number, the last position, and whether flash attention is on.
FAKE = """
import ctypes, json, os, signal, sys, time

def log(*what):
    with open(os.environ["LOG"], "a") as out:
        out.write(json.dumps(what) + "\\n")

class Params:
    n_ctx = n_batch = n_ubatch = n_threads = n_threads_batch = type_k = type_v = None
    flash_attn = False

def llama_context_default_params():
    return Params()

class Context:
    def __init__(self, params):
        self.params, self.tokens = params, []

def llama_init_from_model(model, params):
    if os.environ.get("ACT") == "no context":
        return None
    log("context", vars(params))
    return Context(params)

def llama_kv_cache_clear(context):
    context.tokens = []

def llama_decode(context, batch):
    tokens, first = batch
    act = os.environ.get("ACT")
    if act == "die" and len(tokens) > 1:
        print("GGML_ASSERT(S > 0) failed", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGABRT)
    if act == "hang":
        log("hangs")
        time.sleep(600)
    if act == "refuse":
        return 1
    assert first == len(context.tokens)
    assert len(tokens) <= context.params.n_ubatch
    assert first + len(tokens) <= context.params.n_ctx
    print("a line of the library on stdout")
    os.write(1, b"and one past Python\\n")
    context.tokens += tokens
    log("read", first, len(tokens))
    return 0

def llama_batch_free(batch):
    pass

def llama_get_logits_ith(context, i):
    assert i == -1
    held = context.tokens
    context.logits = (ctypes.c_float * 4)(sum(held), len(held), len(held) - 1, context.params.flash_attn)
    return ctypes.cast(context.logits, ctypes.POINTER(ctypes.c_float))

class _lib:
    @staticmethod
    def llama_print_system_info():
        return b"AVX = 1 | AVX_VNNI = 0 | AVX2 = 1 | AVX512 = 0 | FMA = 1 |"

class _Function:
    def __init__(self, call):
        self.call = call
    def __call__(self):
        return self.call()

_lib.llama_print_system_info = _Function(_lib.llama_print_system_info)
"""
FAKE_INTERNALS = """
class IkModel:
    n_vocab = 4
    def __init__(self, path):
        with open(path, "rb") as file:
            if file.read(4) != b"GGUF":
                raise RuntimeError(f"Failed to load model: {path}")
        self.model = path

def make_batch_range(tokens, *, pos_start=0, logits_last=True):
    return tokens, pos_start
"""
METADATA = "Metadata-Version: 2.1\nName: ik-llama-cpp-python\nVersion: 0.1.5\n"


@pytest.fixture()
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[Any]]]:
    """Puts the stand-in where child processes find it; gives what was called of it."""
    package, info = tmp_path / "site" / IK_MODULE, tmp_path / "site" / "ik_llama_cpp_python-0.1.5.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    (package / "__init__.py").write_text("")
    (package / "_ctypes_api.py").write_text(FAKE)
    (package / "_internals.py").write_text(FAKE_INTERNALS)
    (info / "METADATA").write_text(METADATA)
    calls = tmp_path / "calls.jsonl"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("LOG", str(calls))
    yield lambda: [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []


@pytest.fixture()
def path(tiny_model: TinyModel) -> str:
    return str(tiny_model(TinyConfig())[0])


@contextlib.contextmanager
def opened(path: str, **changes: Any) -> Iterator[PeerProcess]:
    sizes = {"n_ctx": 40, "n_ubatch": 8, "n_threads": 1, "flash_attn": True}
    with contextlib.closing(PeerProcess(sys.executable)) as process:
        process.open(path, **{**sizes, **changes})
        yield process


# ---- the process


def test_a_prompt_is_read_in_ubatches_and_the_rest_one_by_one_from_an_empty_context(
    path: str, log: Callable[[], list[Any]]
) -> None:
    with opened(path) as process:
        runs = [process.measure(list(range(22)), 20) for _ in range(2)]
    one = [["read", 0, 8], ["read", 8, 8], ["read", 16, 4], ["read", 20, 1], ["read", 21, 1]]
    assert log()[1:] == one * 2
    for run in runs:
        assert run.logits.tolist() == [sum(range(20)), 20, 19, 1]  # after the prompt
        assert 0 < run.prefill_s <= run.ttft_s and run.decode_s > 0


def test_the_peer_is_opened_with_the_settings_of_the_others(path: str, log: Callable[[], list[Any]]) -> None:
    with opened(path, n_threads=3, flash_attn=False):
        pass
    expected = {"n_ctx": 40, "n_batch": 8, "n_ubatch": 8, "n_threads": 3, "n_threads_batch": 3}
    assert log() == [["context", {**expected, "type_k": 1, "type_v": 1, "flash_attn": False}]]


@pytest.mark.usefixtures("log")
def test_what_fails_is_said_in_the_peers_own_words(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no.gguf").write_bytes(b"no model")
    with pytest.raises(LazyError, match="RuntimeError: Failed to load model"), opened(str(tmp_path / "no.gguf")):
        pass
    for act, words in (
        ("no context", "ik_llama.cpp: RuntimeError: no context of 40 tokens"),
        ("refuse", "ik_llama.cpp: RuntimeError: llama_decode gave 1 at token 0"),
        ("die", r"ik_llama.cpp: its process ended with status -6: GGML_ASSERT\(S > 0\) failed"),
    ):
        monkeypatch.setenv("ACT", act)
        with pytest.raises(LazyError, match=words), opened(path) as process:
            process.measure([1, 2, 3], 2)


def test_cancel_ends_a_run_that_hangs(path: str, log: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACT", "hang")

    def cancel_when_it_hangs() -> None:
        while ["hangs"] not in log():
            time.sleep(0.01)
        process.cancel()

    with opened(path) as process:
        canceller = threading.Thread(target=cancel_when_it_hangs)
        canceller.start()
        with pytest.raises(Cancelled):
            process.measure([1, 2, 3], 2)
        canceller.join()
    assert process._process.returncode == -signal.SIGKILL


@pytest.mark.usefixtures("log")
def test_closing_ends_the_process_and_a_second_time_does_nothing(path: str) -> None:
    with opened(path) as process:
        assert process._process.poll() is None
    assert process._process.returncode == 0
    process.close()


# ---- which Python


@pytest.mark.usefixtures("log")
def test_the_package_is_found_in_a_python_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_ik(sys.executable)
    assert (found.python, found.version) == (sys.executable, "0.1.5")
    assert isa_of(found.system_info) == "avx2"


def test_a_python_without_the_package_is_refused_with_the_command_that_installs_it(tmp_path: Path) -> None:
    if importlib.util.find_spec(IK_MODULE):
        pytest.skip("the package is installed beside lazygguf")
    make = "python3 -m venv ik-venv && ik-venv/bin/pip install ik-llama-cpp-python==0.1.5"
    with pytest.raises(ValueError) as missing:
        find_ik(None)
    assert str(missing.value) == f"--peer ik: not installed here: {make}, then --peer-python ik-venv/bin/python"
    with pytest.raises(ValueError, match=f"no such program; this makes one: {make}"):
        find_ik(str(tmp_path / "python"))
    with pytest.raises(ValueError, match=r"No module named 'ik_llama_cpp'.* -m pip install ik-llama-cpp-python==0\.1"):
        find_ik(sys.executable)


def test_the_instruction_set_is_the_best_that_the_system_info_names() -> None:
    assert isa_of("CPU : AVX = 1 | AVX2 = 1 | AVX512 = 1 | AVX512_VNNI = 1 | REPACK = 1 |") == "avx512vnni"
    assert isa_of("AVX = 1 | AVX_VNNI = 0 | AVX2 = 1 | AVX512 = 0") == "avx2"
    assert isa_of("CPU : NEON = 1 | ARM_FMA = 1 | DOTPROD = 1") == "dotprod"
    assert isa_of("") == "plain"


# ---- the command


def test_the_peer_has_rows_and_every_row_its_ratio(
    path: str, log: Callable[[], list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    peer = ("--peer", "ik", "--peer-python", sys.executable)
    assert main(["bench", "-m", path, "-p", "30", *QUICK, *peer, "--json"]) == 0
    found = {r["engine"]: r for r in json.loads(capsys.readouterr().out) if r["test"] == "pp30"}
    assert list(found) == ["llama-cpp-python", IK, LAZYGGUF]
    theirs, ours = found[IK], found[LAZYGGUF]
    assert (theirs["engine_version"], theirs["engine_isa"], theirs["flash_attn"]) == ("0.1.5", "avx2", 1)
    assert theirs["reached"] is None and theirs["ratio_ik"] == 1.0
    pairs = [them / us for us, them in zip(ours["samples_ns"], theirs["samples_ns"])]
    assert ours["ratio_ik"] == pytest.approx(np.median(pairs), rel=1e-3)
    assert ours["engine_isa"] == ours["isa"] and ours["cpu_info"]
    assert theirs["kv_bytes"] is None
    # a warm-up and two runs
    assert log()[1:] == [["read", 0, 30], ["read", 30, 1], ["read", 31, 1]] * 3


@pytest.mark.usefixtures("log")
def test_the_table_names_the_peer_and_each_instruction_set(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    peer = ("--peer", "ik", "--peer-python", sys.executable, "--peer-flash-attn", "off")
    assert main(["bench", "-m", path, "-p", "30", "--against", "none", *QUICK, *peer]) == 0
    out = capsys.readouterr().out
    assert "TTFT, decode, total / ik" in out
    assert "ik_llama.cpp 0.1.5 avx2" in out and "flash attention (not ik_llama.cpp)" in out


@pytest.mark.usefixtures("log")
def test_the_peak_is_that_of_the_peers_own_process(path: str) -> None:
    settings = Settings(1, 40, peer_python=sys.executable)
    peak = peak_bytes(path, Contender(IK), settings, Script(list(range(3, 35)), 30))
    assert 5e6 < peak < 200e6  # Python with NumPy, begun by one with lazygguf


def test_options_of_a_peer_that_do_not_fit_are_wrong_usage(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "-m", path, "--peer-python", "python3"]) == 2
    assert "are for --peer" in capsys.readouterr().err
    assert main(["bench", "-m", path, "--peer", "ik", "-ngl", "1"]) == 2
    assert "runs on this machine's CPU" in capsys.readouterr().err


def test_ctrl_c_ends_the_peer_and_prints_what_is_complete(
    path: str, log: Callable[[], list[Any]], tmp_path: Path
) -> None:
    arguments = ["bench", "-m", path, "-p", "30,40", *QUICK, "--against", "none", "--json"]
    arguments += ["--peer", "ik", "--peer-python", sys.executable]
    begin = f"import sys; sys.path[:] = {sys.path!r}; from lazygguf.cli.main import main"
    command = f"{begin}; sys.exit(main({arguments!r}))"
    environment = {**os.environ, "ACT": "hang"}
    started = subprocess.Popen(
        [sys.executable, "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    while ["hangs"] not in log() and started.poll() is None:
        time.sleep(0.01)
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=60)
    assert started.returncode == EXIT_INTERRUPTED, err
    assert out == "" and "before a prompt length was complete" in err
