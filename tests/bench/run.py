"""Runs one benchmark. Exit status 1 when a measurement falls short of what is asked."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from lazygguf.tools.bench.text import TEXT
from report import Report

PARTS = ("speed", "parity", "memory", "needle", "session", "long_context")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("-m", "--model", required=True, help="GGUF file")
    parser.add_argument("-md", "--model-draft", help="GGUF file of the draft (session)")
    parser.add_argument("-k", "--keep", action="append", default=[], help="keep schedule; may be repeated")
    parser.add_argument("-p", "--lengths", type=int, nargs="+", help="prompt tokens (speed, long_context)")
    parser.add_argument("-r", "--repeats", type=int, default=5, help="counted runs (speed, long_context)")
    parser.add_argument("-n", "--samples", type=int, default=20, help="prompts (needle), sessions (session)")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-f", "--text", type=Path, default=TEXT, help="text to read")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="time and memory by length (long_context)")
    return parser.parse_args(argv)


def main() -> int:
    args = parse()
    report = Report()
    importlib.import_module(args.part).run(args, report)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
