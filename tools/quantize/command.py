"""``lazygguf quantize``: llama.cpp's quantizer on a checked file, with a progress bar, atomic output."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import signal
import subprocess
from collections import deque
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Callable, Optional

from lazygguf.errors import LazyError, UnsupportedModelError

from ..atomic_file import atomic_output, check_space, check_target, shown_bytes, write_error
from ..child_process import child_command
from ..convert.writer import check_input, check_written
from ..progress_bar import say, step_bar
from .imatrix_file import read_imatrix
from .quant_types import COPY, QuantType, quant_type, tensor_type

_STEP = re.compile(r"\[\s*(\d+)/\s*(\d+)\]")
_SIZE = re.compile(r"quant size\s*=\s*([\d.]+) MiB \(([\d.]+) BPW\)")
_TYPE = re.compile(r"\[\s*\d+/\s*\d+\] (\S+) .* type =\s*(\w+), size = [^(]*(?:\((\w+)\))?$")
_STREAM_ERROR = "iostream error"  # all that the C++ library tells of a read or a write that failed
PROBE_BYTES = 64 << 20  # more than one tensor of most models takes
_FAILED = re.compile(r"failed to quantize: (.*)")


@dataclass(frozen=True)
class QuantizeOptions:
    """What llama_model_quantize can be told."""

    ftype: int
    only_copy: bool = False
    pure: bool = False
    allow_requantize: bool = False
    quantize_output_tensor: bool = True
    output_tensor_type: Optional[int] = None
    token_embedding_type: Optional[int] = None
    imatrix: Optional[str] = None
    n_threads: int = 0  # 0: all cores
    dry_run: bool = False


@dataclass(frozen=True)
class QuantizeResult:
    """n_bytes: of the tensors; bits: of a weight, on average; warnings: of the quantizer's log.

    types: of a dry run, the type of each tensor, as (name, ggml's name of the type).
    """

    n_bytes: int
    bits: float
    warnings: tuple[str, ...]
    types: tuple[tuple[str, str], ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of ``lazygguf quantize``."""
    parser.add_argument("input", metavar="IN", type=Path, help="GGUF model, best F32, F16 or BF16")
    parser.add_argument("output", metavar="OUT", type=Path, help="file to write")
    parser.add_argument("type", metavar="TYPE", help="such as Q4_K_M, Q8_0, F16, COPY")
    parser.add_argument("--pure", action="store_true", help="every matrix gets TYPE, no mix")
    parser.add_argument("--output-tensor-type", metavar="T", help="type of output.weight, such as q6_K")
    parser.add_argument("--token-embedding-type", metavar="T", help="type of token_embd.weight")
    parser.add_argument("--leave-output-tensor", action="store_true", help="do not quantize output.weight")
    parser.add_argument("--imatrix", metavar="FILE", type=Path, help="importance matrix; very small types need one")
    parser.add_argument("--allow-requantize", action="store_true", help="take an input that is quantized already")
    parser.add_argument("--dry-run", action="store_true", help="only say how large the result would be")
    parser.add_argument("--force", action="store_true", help="replace an existing OUT")
    parser.add_argument("-t", "--threads", metavar="N", type=int, default=0, help="threads (default: all cores)")


def run(args: argparse.Namespace) -> int:
    """Runs ``lazygguf quantize``; the exit code is 0 or an exception comes."""
    kind = quant_type(args.type)
    if args.threads < 0:
        raise ValueError(f"--threads {args.threads}: expected 0 (all cores) or more")
    if args.imatrix is not None:
        read_imatrix(args.imatrix)  # its faults are found before the work
    options = _options(args, kind)
    check_input(args.input)
    if not args.dry_run:
        check_not_same(args.input, args.output)
        check_target(args.output, args.force)
    planned = run_quantizer(args.input, args.output, replace(options, dry_run=True), lambda done, total: None)
    say(f"{args.input.name} -> {kind.name}: {shown_bytes(planned.n_bytes)}, {planned.bits:.2f} bits a weight")
    if args.dry_run:
        for line in planned.warnings:
            say(line)
        return 0
    check_space(args.output.parent, planned.n_bytes)
    with atomic_output(args.output, args.force) as scratch:
        with step_bar("quantizing") as progress:
            result = run_quantizer(args.input, scratch, options, progress)
        check_written(scratch)
    for line in result.warnings:
        say(line)
    print(f"lazygguf chat -m {shlex.quote(str(args.output))}")
    return 0


def _options(args: argparse.Namespace, kind: QuantType) -> QuantizeOptions:
    return QuantizeOptions(
        ftype=kind.ftype,
        only_copy=kind.name == COPY,
        pure=args.pure,
        allow_requantize=args.allow_requantize,
        quantize_output_tensor=not args.leave_output_tensor,
        output_tensor_type=tensor_type(args.output_tensor_type) if args.output_tensor_type else None,
        token_embedding_type=tensor_type(args.token_embedding_type) if args.token_embedding_type else None,
        imatrix=str(args.imatrix) if args.imatrix is not None else None,
        n_threads=args.threads,
    )


def check_not_same(source: Path, target: Path) -> None:
    """Raises ValueError when the output is the input."""
    if target.exists() and source.samefile(target):
        raise ValueError(f"{target}: the output is the input; name another file")


def run_quantizer(
    source: Path, target: Path, options: QuantizeOptions, progress: Callable[[int, int], None]
) -> QuantizeResult:
    """Quantizes in a process of its own, which dies with this call.

    Raises:
        UnsupportedModelError: The quantizer refuses; its own words say why.
        OSError: The disk is full, or another limit is reached.
        LazyError: It died.
    """
    job = {**asdict(options), "source": str(source), "target": str(target)}
    command = child_command("lazygguf.tools.quantize.worker")
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        try:
            process.stdin.write(json.dumps(job).encode())
            process.stdin.close()
            log = _follow(process.stdout, progress)
            status = process.wait()
            errors = process.stderr.read().decode("utf-8", "replace")
        finally:
            process.kill()  # does nothing to one that has ended
            process.wait()
    if status != 0 and _STREAM_ERROR in "\n".join(log):
        cause = write_error(target, PROBE_BYTES) if target.exists() else None
        if cause is not None:
            raise OSError(
                cause.errno, f"{cause.strerror}, while the model was quantized", str(target.parent)
            ) from cause
        raise LazyError(f"llama.cpp could not read {source} or write into {target.parent} to its end")
    return _result(status, log, errors)


def _follow(stream: IO[bytes], progress: Callable[[int, int], None]) -> list[str]:
    """Reads the log to its end; returns its last lines."""
    lines: deque[str] = deque(maxlen=4096)
    for raw in stream:
        line = raw.decode("utf-8", "replace").rstrip()
        match = _STEP.match(line)
        if match:
            progress(int(match[1]), int(match[2]))
        if line:
            lines.append(line)  # a failure is told on the line of the tensor that it happened at
    return list(lines)


def _result(status: int, log: list[str], errors: str) -> QuantizeResult:
    text = "\n".join(log)
    if status != 0:
        failed = _FAILED.search(text)
        if failed:
            hint = "; --allow-requantize takes it, at a loss of quality" if "requantizing" in failed[1] else ""
            hint = "; make one with llama-imatrix and give it with --imatrix" if "imatrix" in failed[1] else hint
            raise UnsupportedModelError(f"llama.cpp cannot quantize this: {failed[1].strip()}{hint}")
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit code {status}"
        last = (errors.strip().splitlines() or log[-1:] or ["no message"])[-1]
        raise LazyError(f"llama.cpp's quantizer died ({how}): {last}")
    size = _SIZE.search(text)
    if size is None:
        raise LazyError("llama.cpp's quantizer ended without saying the size of its result")
    warnings = tuple(re.sub(r"^\w+: ", "", line) for line in log if "WARNING" in line)
    types = tuple((m[1], m[3] or m[2]) for m in map(_TYPE.match, log) if m)
    return QuantizeResult(int(float(size[1]) * 1024 * 1024), float(size[2]), warnings, types)
