"""The command line: which commands there are, and how errors leave.

Owns the registry of commands and the exit codes: 0, 1 for an error (one line on stderr), 2 for wrong usage,
130 for Ctrl-C. A command is a module with ``add_arguments(parser)`` and ``run(args) -> int``; only the one
that is asked for is imported. A new command is one line in ``COMMANDS``.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Optional

from .. import __version__
from ..errors import LazyError
from .interrupts import EXIT_INTERRUPTED as EXIT_INTERRUPTED
from .interrupts import orderly_interrupts
from .printable import printable
from .streams import drop_stdout, prepare_streams, replaced_note, write_stdout

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE


class UsageError(Exception):
    """The arguments do not fit together; exit code 2."""


@dataclass(frozen=True)
class Command:
    """A subcommand: the module that runs it, its line in the help, and whether its result goes to stdout."""

    module: str
    help: str
    prints: bool = True


COMMANDS = {
    "chat": Command("lazygguf.cli.chat", "ask a model, about a long text or about anything"),
    "convert": Command(
        "lazygguf.tools.convert.command", "make a GGUF file from a Llama or Qwen checkpoint", prints=False
    ),
    "quantize": Command("lazygguf.tools.quantize.command", "make a GGUF file smaller", prints=False),
    "bench": Command(
        "lazygguf.tools.bench.command", "measure reading and answering, dense and pruned, beside llama.cpp"
    ),
    "eval": Command("lazygguf.tools.eval.command", "measure what a keep schedule costs in quality, beside baselines"),
    "calibrate": Command(
        "lazygguf.tools.calibrate.command", "find the cheapest keep schedule that keeps a model's answers", prints=False
    ),
    "rpc-server": Command("lazygguf.cli.rpc_server", "lend this machine's devices to others", prints=False),
    "inspect": Command("lazygguf.tools.inspect", "print what is in a GGUF file"),
}


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Runs the command line and returns the exit code; without ``argv`` it is the process's own, which ends then."""
    with orderly_interrupts(until_exit=argv is None):
        try:
            code = _run(list(sys.argv[1:] if argv is None else argv))
            note = replaced_note()
            if note is not None:
                print(f"lazygguf: {note}", file=sys.stderr)
            return code
        except KeyboardInterrupt:  # during what _run does about an error
            return EXIT_INTERRUPTED


def _run(given: Sequence[str]) -> int:
    try:
        stdout_closed = prepare_streams()
        args = _parse(given)
        if args is None:
            return 0
        command = COMMANDS[args.command]
        if stdout_closed and command.prints:
            raise OSError("stdout is closed and the result goes there: redirect it to a file, or to /dev/null")
        if getattr(args, "list_devices", False):
            print(import_module("lazygguf.model.devices").device_table(args.rpc))
            return 0
        code = int(import_module(command.module).run(args))
        write_stdout()
        return code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        drop_stdout()
        return EXIT_BROKEN_PIPE
    except UsageError as error:
        return _fail(error, EXIT_USAGE)
    except (LazyError, ValueError, TypeError, OSError, MemoryError, RuntimeError, ImportError) as error:
        return _fail(error, EXIT_ERROR)


def say_error(error: BaseException) -> str:
    """An error in one line, the way the command line shows it."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = str(error) or type(error).__name__
    return printable(" ".join(text.split()))


def _fail(error: BaseException, code: int) -> int:
    with contextlib.suppress(OSError):  # stderr may be gone too
        print(f"lazygguf: error: {say_error(error)}", file=sys.stderr, flush=True)
    return code


def _join_layers(given: Sequence[str]) -> list[str]:
    """Writes ``--keep -1:0.2`` as ``--keep=-1:0.2``: argparse takes a word that begins with a dash for an option."""
    words: list[str] = []
    for word in given:
        if words and words[-1] == "--keep" and word[:1] == "-" and word[1:2].isdigit():
            words[-1] = f"--keep={word}"
        else:
            words.append(word)
    return words


def _parse(given: Sequence[str]) -> Optional[argparse.Namespace]:
    """The arguments; None when only the help was wanted. Wrong usage raises SystemExit with code 2."""
    parser = argparse.ArgumentParser(
        prog="lazygguf",
        description="Ask questions about long texts: quantized models that read only what the answer needs.",
    )
    parser.add_argument("--version", action="version", version=f"lazygguf {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    asked = next((word for word in given if not word.startswith("-")), None)
    subs = {}
    for name, command in COMMANDS.items():
        subs[name] = commands.add_parser(name, help=command.help, description=command.help, allow_abbrev=False)
        if name == asked:
            import_module(command.module).add_arguments(subs[name])
    args, unknown = parser.parse_known_args(_join_layers(given))
    if unknown:
        subs.get(args.command, parser).error(f"unrecognized arguments: {' '.join(unknown)}")
    if args.command is None:
        parser.print_help()
        return None
    return args
