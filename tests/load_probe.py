"""Opens model files in a process of its own, since a mistake there ends the process and not the test.

Run as a program it is the worker: a JSON request a line on stdin, a JSON answer a line on stdout. Imported it is
``LoadWorker``, which names the case that ended the worker or made it hang, and starts another one.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Optional

HANG_S = 120  # far more than any case takes
STAGES = ("file", "check", "native", "lazy")
# Text that needs every byte of a vocabulary, and is cut into odd pieces by every pre-tokenizer.
TEXT = bytes(range(256)) + " the caf\u00e9  \n\n 12345 \u4e16\u754c\U0001f600".encode()
PROMPT = [3 + i % 40 for i in range(40)]

Outcome = Optional[list[str]]  # [name of the exception, its message], None where all went well


class LoadWorker:
    """A worker process; ``ask`` fails the test where the worker dies or hangs."""

    def __init__(self) -> None:
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close)

    def ask(self, path: Path, stages: Iterable[str] = STAGES) -> dict[str, Any]:
        """What each stage came to: ``None`` or ``[exception, message]``; and "rss_mb", how far memory rose."""
        process = self._started()
        assert process.stdin is not None and process.stdout is not None
        request = {"path": str(path), "stages": list(stages)}
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            hangs = not selector.select(HANG_S)
        line = b"" if hangs else process.stdout.readline()
        if not line:
            raise AssertionError(f"{path}: the process {'hangs' if hangs else 'ended'}: {self._end()}")
        return dict(json.loads(line))

    def close(self) -> None:
        """Ends the worker."""
        if self._process is not None:
            self._end()
        self._stderr.close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            env = {**os.environ, "PYTHONPATH": os.pathsep.join(entry or "." for entry in sys.path)}
            env.update(GGML_NO_BACKTRACE="1", OPENBLAS_NUM_THREADS="1", PYTHONFAULTHANDLER="1")
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=env,
            )
        return self._process

    def _end(self) -> str:
        process, self._process = self._process, None
        assert process is not None and process.stdin is not None and process.stdout is not None
        process.stdin.close()
        process.stdout.close()
        try:
            code = process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        reason = signal.Signals(-code).name if code < 0 else f"code {code}"
        self._stderr.seek(0)
        said = self._stderr.read()[-1500:].decode("utf-8", "replace")
        self._stderr.truncate(0)
        return f"{reason}\n{said}"


def assert_accepted(answer: dict[str, Any]) -> None:
    """No stage refused the file."""
    assert all(answer[stage] is None for stage in answer if stage != "rss_mb"), answer


def assert_refused(answer: dict[str, Any], stage: str, exception: str, *said: str) -> None:
    """Every stage from ``stage`` on refuses the file, with one line that says all of this; those before do not."""
    first = STAGES.index(stage)
    for name in STAGES[:first]:
        assert answer[name] is None, (name, answer[name])
    for name in STAGES[first:]:
        assert answer[name] is not None, f"{name} accepts the file"
        found, message = answer[name]
        assert found == exception, (name, found, message)
        assert "\n" not in message
        for text in said:
            assert text in message, (name, message)


# ---- the worker ----


def _file(path: str) -> None:
    from lazygguf._ffi import NativeFile

    with NativeFile(path) as file:
        assert all(isinstance(key, str) for key in file.metadata)
        assert all(0 <= t.offset <= t.offset + t.n_bytes <= file.size for t in file.tensors)


def _check(path: str) -> None:
    from lazygguf._ffi import NativeFile

    with NativeFile(path) as file:
        file.check()


def _native(path: str) -> None:
    from lazygguf._ffi import NativeModel

    NativeModel(path).close()


def _lazy(path: str) -> None:
    from lazygguf import LazyModel

    with LazyModel(path, n_threads=1, n_ctx=64) as model:
        assert -1 <= model.token_bos() < model.n_vocab() and -1 <= model.token_eos() < model.n_vocab()
        for special in (False, True):
            model.detokenize(model.tokenize(TEXT, special=special), special=special)
        model.create_completion("the cat", max_tokens=2, temperature=0)


def _eval(path: str, use_mmap: bool = True) -> None:
    """Dense and lazy. A step that fails leaves the session as it was, and open to another one."""
    from lazygguf import KeepSchedule
    from lazygguf._ffi import NativeModel, NativeSession
    from lazygguf.errors import LazyError

    model = NativeModel(path, use_mmap=use_mmap)
    for schedule in (None, KeepSchedule.paper("0:0.5")):
        session = NativeSession(model, n_ctx=64, n_ubatch=16, schedule=schedule)
        n_tokens = 0
        try:
            for ids in (PROMPT, [5]):
                session.eval(ids)
                n_tokens += len(ids)
        except Exception:
            assert session.n_tokens == n_tokens and (session.logits() is None) == (n_tokens == 0)
            with contextlib.suppress(LazyError):
                session.eval([5])
            session.reset()
            raise
        finally:
            session.close()
    model.close()


def _outlives(path: str, use_mmap: bool, change: Callable[[], None]) -> None:
    """The file changes between two steps, which must not be seen."""
    import numpy as np

    from lazygguf._ffi import NativeModel, NativeSession

    session = NativeSession(NativeModel(path, use_mmap=use_mmap), n_ctx=64)
    session.eval(PROMPT)
    expected = session.logits()
    change()
    session.reset()
    session.eval(PROMPT)
    np.testing.assert_array_equal(session.logits(), expected)


def _replaced(path: str) -> None:
    other = Path(path + ".new")
    other.write_bytes(b"another file")
    _outlives(path, True, lambda: os.replace(other, path))


def _shrunk(path: str) -> None:
    _outlives(path, False, lambda: os.truncate(path, 100))


_ACTIONS: dict[str, Callable[[str], None]] = {
    "file": _file,
    "check": _check,
    "native": _native,
    "lazy": _lazy,
    "eval": _eval,
    "eval without mmap": lambda path: _eval(path, use_mmap=False),
    "replaced": _replaced,
    "shrunk": _shrunk,
}


def _run(action: Callable[[str], None], path: str) -> Outcome:
    try:
        action(path)
    except Exception as error:
        return [type(error).__name__, str(error)]
    return None


def _peak_mb(reset: bool) -> float:
    """Peak of the resident memory; since the last reset, where the kernel can forget it."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    has_peak = os.access("/proc/self/clear_refs", os.W_OK)
    for line in sys.stdin:
        request = json.loads(line)
        before = _peak_mb(reset=True) if has_peak else 0.0
        answer: dict[str, Any] = {stage: _run(_ACTIONS[stage], request["path"]) for stage in request["stages"]}
        answer["rss_mb"] = _peak_mb(reset=False) - before if has_peak else 0.0
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    import lazygguf  # noqa: F401  loaded before memory is measured

    _serve()
