"""Devices and RPC servers as a user names them, on a machine that may have neither."""

from __future__ import annotations

import argparse
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_gguf import TinyConfig

import lazygguf._ffi.rpc as rpc
from lazygguf import LazyModel
from lazygguf._ffi import GPU_LAYERS_AUTO, NativeModel, NativeSession, Placement, list_devices
from lazygguf.cli.arguments import add_compute_arguments, add_placement_argument, compute_options
from lazygguf.cli.main import main
from lazygguf.errors import LazyError
from lazygguf.model.devices import device_names, layer_count
from lazygguf.model.options import ModelOptions

Write = Callable[[TinyConfig], tuple[Path, dict[str, np.ndarray]]]
VERSION = 7
HAS_GPU = any(device.type in ("GPU", "IGPU") for device in list_devices())


# ---- servers


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, []),
        ("a:1", ["a:1"]),
        ("127.0.0.1:50052, host.example:1", ["127.0.0.1:50052", "host.example:1"]),
        (["a:1", "b:65535"], ["a:1", "b:65535"]),
    ],
)
def test_addresses_are_read_from_text_or_a_list(given: Any, expected: list[str]) -> None:
    assert rpc.parse_servers(given) == expected


@pytest.mark.parametrize("wrong", ["", "host", ":5", "host:", "host:0", "host:65536", "host:x", "[::1]:5", "a:1,,b:2"])
def test_a_malformed_address_is_a_value_error_that_shows_it(wrong: str) -> None:
    with pytest.raises(ValueError, match="expected HOST:PORT"):
        rpc.parse_servers(wrong)
    with pytest.raises(ValueError, match="expected HOST:PORT"):
        LazyModel(__file__, rpc_servers=wrong, n_gpu_layers=1)


def test_a_server_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="each server once"):
        rpc.parse_servers("a:1,a:1")


class Listener:
    """A server of one connection that gives one answer, and keeps what it was sent."""

    def __init__(self, answer: bytes) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.received = b""
        self._answer = answer
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            self.received = connection.recv(1000)
            connection.sendall(self._answer)

    def close(self) -> None:
        self._thread.join()
        self._socket.close()


def hello(version: int) -> bytes:
    """What a server of a version of the protocol says."""
    return (28).to_bytes(8, "little") + bytes([version, 0, 0, 0]) + bytes(24)


def test_a_server_that_says_hello_is_good() -> None:
    with closing(Listener(hello(VERSION))) as server:
        rpc.check_server(server.endpoint, VERSION)
    assert server.received == bytes([14]) + (24).to_bytes(8, "little") + bytes(24)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (hello(6), "speaks version 6 of ggml's RPC protocol, this machine version 7"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(40), "does not speak ggml's RPC protocol 7"),
        (b"", "does not speak ggml's RPC protocol 7"),
    ],
)
def test_a_server_of_another_kind_is_named(answer: bytes, said: str) -> None:
    with closing(Listener(answer)) as server, pytest.raises(LazyError, match=said) as caught:
        rpc.check_server(server.endpoint, VERSION)
    assert server.endpoint in str(caught.value)


def test_a_server_that_is_busy_or_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "_TIMEOUT_S", 0.2)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        endpoint = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(LazyError, match=f"{endpoint} does not answer within .* one client at a time"):
            rpc.check_server(endpoint, VERSION)
    with pytest.raises(LazyError, match=f"{endpoint}: Connection refused"):
        rpc.check_server(endpoint, VERSION)
    with pytest.raises(LazyError, match=r"nowhere\.invalid:1: "):
        rpc.check_server("nowhere.invalid:1", VERSION)


# ---- options


@pytest.mark.parametrize(("given", "expected"), [(0, 0), (7, 7), (-1, -1), ("all", -1), ("auto", GPU_LAYERS_AUTO)])
def test_layers_are_a_number_or_a_word(given: Any, expected: int) -> None:
    assert layer_count(given) == expected


@pytest.mark.parametrize("wrong", [-2, 1.0, True, "many", "-1", None, 2**31])
def test_other_layers_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"n_gpu_layers is .*, expected an integer >= -1"):
        LazyModel(__file__, n_gpu_layers=wrong)


@pytest.mark.parametrize(
    ("given", "expected"), [(None, None), ("none", "none"), ("A0, B1", "A0,B1"), (["A0", "B1"], "A0,B1")]
)
def test_devices_are_named_by_text_or_a_list(given: Any, expected: Any) -> None:
    assert device_names(given) == expected


@pytest.mark.parametrize("wrong", ["", "A0,", ["A0,B1"], [""], [], "A0,none"])
def test_an_empty_name_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="expected names of devices"):
        LazyModel(__file__, device=wrong, n_gpu_layers=1)


@pytest.mark.parametrize("named", [{"device": "Vulkan0"}, {"rpc_servers": "a:1"}])
def test_a_device_that_would_get_no_layer_is_refused(named: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="n_gpu_layers is 0: no layer would run there"):
        LazyModel(__file__, **named)


def test_servers_without_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="rpc_servers a:1 is given, but device is 'none'"):
        LazyModel(__file__, rpc_servers="a:1", device="none", n_gpu_layers=1)


@pytest.mark.parametrize(
    "wrong", [{"device": 5}, {"device": ["A0", 5]}, {"rpc_servers": ["a:1", 5]}, {"rpc_servers": 5}]
)
def test_names_that_are_no_text_are_type_errors(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(wrong))):
        LazyModel(__file__, n_gpu_layers=1, **wrong)


def test_another_placement_is_refused() -> None:
    with pytest.raises(ValueError, match="placement is 'first', expected one of work, last"):
        LazyModel(__file__, placement="first")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", (0, None, None)),
        ("-ngl auto --device A0,B1 --rpc a:1,b:2", ("auto", "A0,B1", "a:1,b:2")),
        ("--n-gpu-layers all -dev none", (-1, "none", None)),
        ("--gpu-layers 7", (7, None, None)),
    ],
)
def test_the_command_line_has_the_same_options(given: str, expected: tuple[Any, ...]) -> None:
    parser = argparse.ArgumentParser()
    add_compute_arguments(parser)
    options = compute_options(parser.parse_args(given.split()))
    assert tuple(options[name] for name in ("n_gpu_layers", "device", "rpc_servers")) == expected
    ModelOptions(**options)


def test_the_placement_is_by_work_unless_told() -> None:
    parser = argparse.ArgumentParser()
    add_placement_argument(parser)
    assert parser.parse_args([]).placement == ModelOptions().placement == "work"
    assert parser.parse_args(["--placement", "last"]).placement == "last"


@pytest.mark.parametrize("command", ["chat", "bench", "eval"])
@pytest.mark.parametrize("wrong", ["-5", "x", "1.5"])
def test_wrong_layers_on_the_command_line_are_wrong_usage(
    wrong: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "-ngl", wrong])
    assert caught.value.code == 2 and f"'{wrong}' is no number of layers" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["chat", "bench", "eval"])
def test_the_devices_are_listed(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--list-devices"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(list_devices())
    assert any(line.startswith("CPU ") and " MiB, " in line and line.endswith(" MiB free)") for line in lines)


@pytest.mark.parametrize("option", ["--device A0", "--rpc a:1", "-ngl auto"])
def test_bench_compares_with_llama_cpp_only_what_both_can_do(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "-m", "a.gguf", *option.split()]) == 2
    assert capsys.readouterr().err == (
        f"lazygguf: error: {option if 'auto' in option else option.split()[0]} is lazygguf's, llama-cpp-python takes a "
        "number of layers only: add --against none\n"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port", "0"], "--port is 0, expected 1 to 65535"),
        (["--threads", "0"], "--threads is 0, expected at least 1"),
    ],
)
def test_a_server_with_wrong_options_is_wrong_usage(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rpc-server", *options]) == 2
    assert said in capsys.readouterr().err


# ---- models without a GPU


@pytest.fixture
def path(tiny_model: Write) -> Path:
    return tiny_model(TinyConfig())[0]


def test_an_unknown_device_is_named_beside_those_there_are(path: Path) -> None:
    with pytest.raises(ValueError, match=r"device is 'Nothing0', expected one of .*none"):
        NativeModel(path, 1, placement=Placement(devices="Nothing0"))
    with pytest.raises(ValueError, match=r"device is 'CPU', expected one of "):
        NativeModel(path, 1, placement=Placement(devices="CPU"))


@pytest.mark.skipif(HAS_GPU, reason="this machine has a GPU")
def test_layers_on_a_gpu_that_is_not_there_are_refused_but_auto_takes_what_there_is(path: Path) -> None:
    with pytest.raises(ValueError, match="ggml has no GPU device"):
        NativeModel(path, -1)
    NativeModel(path, GPU_LAYERS_AUTO).close()
    with LazyModel(path, n_gpu_layers="auto", n_ctx=64) as model:
        model.eval([5, 6, 7])
        assert model.stats.traffic_bytes == {"prefill_h2d": 0, "prefill_d2h": 0, "decode_h2d": 0, "decode_d2h": 0}


@pytest.fixture
def on_none(path: Path) -> Iterator[NativeSession]:
    session = NativeSession(NativeModel(path, -1, placement=Placement(devices="none")), n_ctx=64)
    yield session
    session.close()


def test_the_device_none_is_the_cpu_alone(on_none: NativeSession, path: Path) -> None:
    plain = NativeSession(NativeModel(path), n_ctx=64)
    for session in (on_none, plain):
        session.eval([5, 6, 7])
    np.testing.assert_array_equal(on_none.logits(), plain.logits())
    assert on_none.stats().h2d_bytes == on_none.stats().d2h_bytes == 0 and on_none.notes == ""
    assert " on " not in on_none._model.desc
