"""A GPU device, and two RPC servers on this machine; tests that need what ggml was not built with are skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from gpu.compare import PlacedSession, opening
from gpu.processes import RpcServer

from lazygguf._ffi import has_rpc, list_devices


@pytest.fixture(scope="session")
def gpu() -> str:
    """The name of the first GPU device."""
    for device in list_devices():
        if device.type in ("GPU", "IGPU"):
            return device.name
    pytest.skip("ggml has no GPU device here; tests/gpu/run brings a software one")


@pytest.fixture
def opened() -> Iterator[Callable[..., PlacedSession]]:
    """Opens sessions and closes them after the test."""
    with opening() as open_one:
        yield open_one


@pytest.fixture(scope="session")
def rpc() -> None:
    """Skips where ggml was built without RPC."""
    if not has_rpc():
        pytest.skip("ggml was built without RPC; tests/gpu/run builds one with it")


@pytest.fixture(scope="module")
def servers(rpc: None) -> Iterator[list[str]]:
    """Addresses of two servers that lend their CPU."""
    started = [RpcServer("--device", "CPU") for _ in range(2)]
    yield [server.endpoint for server in started]
    for server in started:
        server.kill()


@pytest.fixture
def mortal_server(rpc: None) -> Iterator[RpcServer]:
    """A server that a test may kill."""
    server = RpcServer("--device", "CPU")
    yield server
    server.kill()
