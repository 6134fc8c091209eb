"""``lazygguf rpc-server``: lends this machine's devices to others.

Owns the command's options and what is said before ggml takes over. The protocol has no passwords and no encryption,
so it listens on this machine alone unless told otherwise.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import socket
import sys
from typing import Optional

from .._ffi import has_rpc, serve_rpc
from .._ffi.rpc import DEFAULT_PORT
from ..errors import LazyError
from ..model.devices import device_names
from ..threads import physical_cores
from ..worker import Worker
from .main import EXIT_INTERRUPTED, UsageError

_OPEN = (
    "lazygguf: warning: whoever can reach {endpoint} can use this machine's memory and may crash or take over this "
    "program: RPC has no passwords and no encryption. Better listen on 127.0.0.1 and let ssh carry it (ssh -L)."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``lazygguf rpc-server``."""
    parser.add_argument("--host", default="127.0.0.1", metavar="HOST", help="where to listen (127.0.0.1)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, metavar="N", help=f"port ({DEFAULT_PORT})")
    parser.add_argument("-dev", "--device", metavar="NAMES", help="devices to lend (every GPU, else the CPU)")
    parser.add_argument("-t", "--threads", type=int, metavar="N", help="threads of a CPU that is lent (physical cores)")


def run(args: argparse.Namespace) -> int:
    """Serves until it is stopped; 130 after Ctrl-C."""
    if not 0 < args.port < 65536:
        raise UsageError(f"--port is {args.port}, expected 1 to 65535")
    n_threads = physical_cores() if args.threads is None else args.threads
    if n_threads < 1:
        raise UsageError(f"--threads is {n_threads}, expected at least 1")
    if not has_rpc():
        raise LazyError(
            'ggml was built without RPC: install llama-cpp-python with CMAKE_ARGS="-DGGML_RPC=ON", see the README'
        )
    address = _free_address(args.host, args.port)
    endpoint = f"{address}:{args.port}"
    if not ipaddress.ip_address(address).is_loopback:
        print(_OPEN.format(endpoint=endpoint), file=sys.stderr)
    return _serve(endpoint, device_names(args.device), n_threads)


def _free_address(host: str, port: int) -> str:
    """The IPv4 address of the host, after a look whether it can be listened on."""
    try:
        address = str(socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError as error:
        raise LazyError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return address


def _serve(endpoint: str, devices: Optional[str], n_threads: int) -> int:
    """Serves in a thread, since Ctrl-C cannot reach Python while C waits for a client."""
    server = Worker(lambda: serve_rpc(endpoint, devices, n_threads))
    try:
        server.start()
        server.join()
    except KeyboardInterrupt:
        sys.stdout.flush()
        os._exit(EXIT_INTERRUPTED)  # an orderly end would wait for the thread, which may be at work for a client
    return 0
