"""Peak memory of one contender at one prompt length: of a process that does nothing else.

A process's peak never falls, and several models live in the process that measures time, so each figure needs a
fresh process. It is the resident set: mapped weights count, and memory of a GPU does not.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lazygguf.errors import LazyError

from ..child_process import child_command
from .contenders import Contender
from .engines import Settings, open_engines
from .text import Script
from .timing import measure

_STATUS = Path("/proc/self/status")


def peak_bytes(path: str, contender: Contender, settings: Settings, script: Script) -> int:
    """Peak resident bytes of a process that opens the model, reads the prompt and the tokens after it.

    Raises:
        LazyError: the process failed; its last line says why.
    """
    job = {
        "path": path,
        "contender": contender.to_dict(),
        "settings": asdict(settings),
        "script": script._asdict(),
    }
    done = subprocess.run(child_command(__name__), input=json.dumps(job), capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise LazyError(f"measuring the memory of {contender.label} failed: {last} (--no-memory skips it)")
    return int(done.stdout.splitlines()[-1])


def main() -> int:
    """The child: a job as JSON on stdin, the peak on stdout."""
    job: dict[str, Any] = json.load(sys.stdin)
    contender = Contender.from_dict(job["contender"])
    with open_engines(job["path"], [contender], Settings(**job["settings"])) as engines:
        measure(engines[contender], Script(**job["script"]))
        print(own_peak_bytes())
    return 0


def own_peak_bytes() -> int:
    """Peak resident bytes of this process.

    Linux's ru_maxrss begins at the size of the process that started this one, hence VmHWM where there is one.
    """
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
