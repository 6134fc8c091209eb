"""Addresses of RPC servers, and whether one answers.

Owns the check before ggml connects: ggml ends the process where a server is absent or speaks another version of the
protocol. Knows nothing of devices or models.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Optional, Union

from .._names import split_names
from ..errors import LazyError

DEFAULT_PORT = 50052
MAX_SERVERS = 15
_TIMEOUT_S = 5.0

# ggml's protocol: a command (1 byte), the size of what follows (8 bytes), then as much. The first command says hello
# with 24 bytes of capabilities (none), and the answer is a version in 4 bytes and capabilities likewise.
_HELLO = 14
_N_CAPS = 24
_ANSWER = struct.Struct(f"<QBBBx{_N_CAPS}s")

Servers = Union[None, str, Sequence[str]]


def parse_servers(servers: Servers) -> list[str]:
    """The addresses in ``"HOST:PORT,HOST:PORT"`` or a list of ``"HOST:PORT"``, checked for form only.

    Raises:
        ValueError: an address is not ``HOST:PORT``.
        TypeError: neither text nor a list of texts.
    """
    if servers is None:
        return []
    endpoints = split_names("rpc_servers", servers)
    for endpoint in endpoints:
        split_endpoint(endpoint)
    if len(set(endpoints)) < len(endpoints):
        raise ValueError(f"rpc_servers is {','.join(endpoints)!r}, expected each server once")
    if len(endpoints) > MAX_SERVERS:
        raise ValueError(f"rpc_servers names {len(endpoints)} servers, expected at most {MAX_SERVERS}")
    return endpoints


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``; the host is a name or an IPv4 address."""
    host, colon, port = endpoint.partition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise ValueError(
            f"rpc_servers has {endpoint!r}, expected HOST:PORT with a name or IPv4 address, such as 127.0.0.1:50052"
        )
    return host, int(port)


def check_server(endpoint: str, version: int) -> None:
    """Connects, says hello and hangs up.

    Args:
        endpoint: ``HOST:PORT``.
        version: major version of the protocol that this process speaks.

    Raises:
        LazyError: nobody answers there, or not in this protocol.
    """
    host, port = split_endpoint(endpoint)
    try:
        address = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0][4]
        with socket.create_connection((str(address[0]), port), _TIMEOUT_S) as connection:
            connection.sendall(struct.pack("<BQ", _HELLO, _N_CAPS) + bytes(_N_CAPS))
            with connection.makefile("rb") as stream:
                answer = stream.read(_ANSWER.size)
    except socket.timeout:
        raise LazyError(
            f"RPC server {endpoint} does not answer within {_TIMEOUT_S:.0f} s: it serves one client at a time, and may "
            "be at work for another one"
        ) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise LazyError(f"RPC server {endpoint}: {reason}; start one there with 'lazygguf rpc-server'") from error
    _check_answer(endpoint, answer, version)


def _check_answer(endpoint: str, answer: bytes, version: int) -> None:
    found: Optional[int] = None
    if len(answer) == _ANSWER.size and _ANSWER.unpack(answer)[0] == _ANSWER.size - 8:
        found = int(_ANSWER.unpack(answer)[1])
    if found is None:
        raise LazyError(f"RPC server {endpoint} does not speak ggml's RPC protocol {version}: is it an rpc-server?")
    if found != version:
        raise LazyError(
            f"RPC server {endpoint} speaks version {found} of ggml's RPC protocol, this machine version {version}: "
            "install the same llama-cpp-python on both"
        )
