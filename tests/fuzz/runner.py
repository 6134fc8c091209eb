"""Runs fuzz targets: cases that follow from a seed and a number, in a process that may end or hang.

A target is a module with ``open_target(folder)``, which gives a function of a ``random.Random``: it makes one case and
raises what must not happen. The parent reads the number of each case before it runs, so that it can name the one that
ended the process.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import random
import selectors
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGETS = ("gguf", "folder", "session", "sessionfile", "schema")
HANG_S = 120  # far more than any case takes


def run_cases(name: str, seed: int, first: int, n_cases: int, seconds: float) -> None:
    """The child: a line with the case's number before each, then "done"."""
    numbers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what is printed by a library or a tool is no number
    end, case = time.monotonic() + seconds, first
    with tempfile.TemporaryDirectory() as folder:
        run = importlib.import_module(f"{HERE.name}.target_{name}").open_target(Path(folder))
        while case < first + n_cases and time.monotonic() < end:
            print(case, file=numbers, flush=True)
            run(random.Random(f"{name} {seed} {case}"))
            case += 1
    print("done", file=numbers, flush=True)


def fuzz(name: str, seed: int, first: int, n_cases: int, seconds: float) -> tuple[int, str]:
    """Runs a target; returns how many cases went well, and what is wrong with the next one ("" for nothing)."""
    command = [sys.executable, str(HERE / "runner.py"), "--child", name]
    for option, value in (("seed", seed), ("first", first), ("cases", n_cases), ("seconds", seconds)):
        command += [f"--{option}", str(value)]
    env = {**os.environ, "GGML_NO_BACKTRACE": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    with tempfile.TemporaryFile() as said, selectors.DefaultSelector() as selector:
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=said)
        assert process.stdout is not None
        selector.register(process.stdout, selectors.EVENT_READ)
        pending, last, problem = b"", first - 1, ""
        while not pending.endswith(b"done\n"):
            if not selector.select(HANG_S):
                process.kill()
                problem = f"it hangs: nothing for {HANG_S} s"
                break
            chunk = os.read(process.stdout.fileno(), 1 << 16)
            if not chunk:
                break
            pending = (pending + chunk)[-100:]
            with contextlib.suppress(IndexError, ValueError):
                last = int(pending.split(b"\n")[-2])
        code = process.wait()
        process.stdout.close()
        if not problem and code == 0:
            return last + 1 - first, ""
        said.seek(0)
        text = said.read()[-6000:].decode("utf-8", "replace")
        again = f"tests/fuzz/run --seed {seed} --first {last} --cases 1 {name}"
        return max(0, last - first), f"{problem or f'exit code {code}'}\n{text}\nagain with: {again}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=300.0, help="for each target")
    parser.add_argument("--seed", type=int, default=None, help="default: the time")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--cases", type=int, default=1 << 60, help="at most so many")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    unknown = set(args.targets) - set(TARGETS)
    if unknown:
        parser.error(f"target is {min(unknown)!r}, expected one of {', '.join(TARGETS)}")
    if args.child:
        sys.path[0] = str(HERE.parent)
        try:
            run_cases(args.targets[0], args.seed, args.first, args.cases, args.seconds)
        except BaseException:
            traceback.print_exc()
            return 1
        return 0
    seed = int(time.time()) if args.seed is None else args.seed
    failed = False
    for name in args.targets or TARGETS:
        n, problem = fuzz(name, seed, args.first, args.cases, args.seconds)
        print(f"{name}: {n} cases, seed {seed}: {'failed' if problem else 'well'}", flush=True)
        if problem:
            print(problem)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
