"""A peer in a process of its own: another program that reads the same tokens, measured in turn with the others.

Owns which Python runs it, the process, and what is said when there is none. ik_llama.cpp brings a ggml of its own,
which cannot be in one process with ours. The peer's process keeps its model open between its turns and waits
meanwhile. It takes the times itself, so that what goes between the processes is in none of them.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np
import numpy.typing as npt

from lazygguf.errors import Cancelled, LazyError

IK_PACKAGE, IK_VERSION, IK_MODULE = "ik-llama-cpp-python", "0.1.5", "ik_llama_cpp"  # the version that is measured
_SCRIPT = Path(__file__).with_name("peer_ik.py")
# the folder in which bench was started must not bring modules of its own
_RUN = "import sys, runpy; sys.path[:] = filter(None, sys.path); runpy.run_path({script!r}, run_name='__main__')"
_WAIT_S = 10.0  # for a process that was told to end


class PeerFacts(NamedTuple):
    """A peer that can be run."""

    python: str  # the Python that has it
    version: str  # of its package
    system_info: str  # what its library was compiled for, in llama.cpp's form


class PeerRun(NamedTuple):
    """One run of a peer; times in seconds, as in ``timing.Sample``."""

    prefill_s: float
    ttft_s: float
    decode_s: float
    logits: npt.NDArray[np.float32]  # after the prompt, (n_vocab,)


def find_ik(python: Optional[str]) -> PeerFacts:
    """ik_llama.cpp in the Python that was named, else in this one.

    Raises:
        ValueError: it is not there; the message says how to install it.
    """
    package = f"{IK_PACKAGE}=={IK_VERSION}"
    make = f"python3 -m venv ik-venv && ik-venv/bin/pip install {package}"
    if python is None and find_spec(IK_MODULE) is None:
        raise ValueError(f"--peer ik: not installed here: {make}, then --peer-python ik-venv/bin/python")
    python = sys.executable if python is None else python
    if not (os.path.isfile(python) and os.access(python, os.X_OK)):
        raise ValueError(f"--peer-python {python}: no such program; this makes one: {make}")
    try:
        with contextlib.closing(PeerProcess(python)) as process:
            return PeerFacts(python, **process.ask(do="facts"))
    except LazyError as error:
        raise ValueError(f"--peer ik: {error}; to install it: {python} -m pip install {package}") from None


class PeerProcess:
    """ik_llama.cpp, with one model when it has opened it. ``cancel`` may come from any thread.

    Args:
        python: the Python that has it.
    """

    def __init__(self, python: str) -> None:
        self._cancelled = self._busy = False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            [python, "-c", _RUN.format(script=str(_SCRIPT))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,  # Ctrl-C is for us: a peer that is in the way is ended by cancel()
        )

    def open(self, path: str, *, n_ctx: int, n_ubatch: int, n_threads: int, flash_attn: bool) -> None:
        """Opens the model.

        Args:
            path: the model.
            n_ctx: tokens of context.
            n_ubatch: tokens computed at once.
            n_threads: threads.
            flash_attn: whether attention is one fused operation, as it is in the other engines.

        Raises:
            LazyError: it cannot be opened; the peer's own words say why.
        """
        sizes = {"n_ctx": n_ctx, "n_ubatch": n_ubatch, "n_threads": n_threads}
        self.ask(do="open", path=path, flash_attn=flash_attn, **sizes)

    def measure(self, ids: list[int], n_prompt: int) -> PeerRun:
        """One run: the prompt, and the tokens after it one at a time.

        Raises:
            Cancelled: ``cancel`` was called.
            LazyError: the run failed, or the process died.
        """
        found = self.ask(do="measure", ids=ids, n_prompt=n_prompt)
        logits = np.frombuffer(base64.b64decode(found["logits"]), "<f4")
        return PeerRun(found["prefill_s"], found["ttft_s"], found["decode_s"], logits)

    def ask(self, **job: Any) -> dict[str, Any]:
        """The answer to a job (see ``peer_ik.py``); errors as ``measure``."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        self._busy = True
        try:
            stdin.write(json.dumps(job) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        self._busy = False
        if self._cancelled:
            raise Cancelled("cancelled")
        found: dict[str, Any] = json.loads(line) if line else {"error": self._last_words()}
        if "error" in found:
            raise LazyError(f"ik_llama.cpp: {found['error']}")
        return found

    def cancel(self) -> None:
        """Ends the process; the run under way raises Cancelled."""
        self._cancelled = True
        self._process.kill()

    def close(self) -> None:
        """Ends the process; a second call does nothing."""
        if self._busy:
            self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _last_words(self) -> str:
        """Why the process ended."""
        status = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        ended = f"its process ended with status {status}"
        return f"{ended}: {lines[-1]}" if lines else ended
