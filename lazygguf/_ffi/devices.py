"""The devices of ggml, here and on RPC servers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

from .library import check, ffi, lib, text
from .rpc import check_server

_MAX_DEVICES = 256


class Device(NamedTuple):
    """A device of ggml's. ``type`` is "CPU", "GPU", "IGPU", "ACCEL" or "RPC"; memory in bytes."""

    name: str
    description: str
    type: str
    memory_free: int
    memory_total: int


def list_devices(rpc_servers: Sequence[str] = ()) -> list[Device]:
    """The devices of these servers (``"HOST:PORT"``), then those of this machine.

    Raises:
        LazyError: a server does not answer.
        ValueError: there are servers, and ggml was built without RPC.
    """
    servers = checked_servers(rpc_servers)
    out, n = ffi.new(f"lazy_device_info[{_MAX_DEVICES}]"), ffi.new("int32_t *")
    check(lib.lazy_devices(out, _MAX_DEVICES, n, servers))
    return [
        Device(text(d.name), text(d.description), text(d.type), int(d.memory_free), int(d.memory_total))
        for d in out[0 : min(n[0], _MAX_DEVICES)]
    ]


def serve_rpc(endpoint: str, devices: Optional[str], n_threads: int) -> None:
    """Lends devices of this machine to others, for as long as the process lives.

    Raises:
        LazyError: the address cannot be listened on.
        ValueError: there is no such device, or ggml was built without RPC.
    """
    check(lib.lazy_rpc_serve(endpoint.encode(), ffi.NULL if devices is None else devices.encode(), n_threads))


def has_rpc() -> bool:
    """Was ggml built with RPC?"""
    return int(lib.lazy_rpc_version()) >= 0


def checked_servers(endpoints: Sequence[str]) -> Any:
    """The servers for C, each of which answers or is connected to already."""
    if not endpoints:
        return ffi.NULL
    for endpoint in endpoints:
        if has_rpc() and not lib.lazy_rpc_is_connected(endpoint.encode()):
            check_server(endpoint, lib.lazy_rpc_version())
    return ffi.new("char[]", ",".join(endpoints).encode())
