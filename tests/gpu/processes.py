"""Processes of their own: RPC servers, and Python that sees the same lazygguf as this one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

WAIT_S = 60


def child_place(**variables: str) -> dict[str, Any]:
    """Folder and environment for a Python that imports what this one does; the folder is not that of the sources."""
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return {"cwd": tempfile.gettempdir(), "env": {**os.environ, "PYTHONPATH": path, **variables}}


def run_python(*args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with arguments, and environment variables on top of this process's."""
    command = [sys.executable, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=4 * WAIT_S, **child_place(**variables))


class RpcServer:
    """``lazygguf rpc-server`` in a process of its own."""

    def __init__(self, *options: str, threads: int = 1) -> None:
        self.port = free_port()
        self.endpoint = f"127.0.0.1:{self.port}"
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (closed in kill)
        command = [sys.executable, "-m", "lazygguf", "rpc-server", "--port", str(self.port), "-t", str(threads)]
        self._process = subprocess.Popen(
            [*command, *options], stdout=self._said, stderr=subprocess.STDOUT, **child_place()
        )
        self._wait()

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def said(self) -> str:
        """What it has printed."""
        self._said.seek(0)
        return self._said.read().decode()

    def kill(self) -> None:
        """Ends it at once, as a machine that fails does."""
        self._process.kill()
        self._process.wait()
        self._said.close()

    def _wait(self) -> None:
        """Until it listens; /proc tells without a connection, which would be its first client."""
        needle = f":{self.port:04X} 00000000:0000 0A"  # in state LISTEN
        for _ in range(WAIT_S * 10):
            with open("/proc/net/tcp", encoding="ascii") as table:
                if needle in table.read():
                    return
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        raise AssertionError(f"the RPC server does not listen: {self.said()}")


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
