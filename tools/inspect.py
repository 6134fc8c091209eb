"""``lazygguf inspect``: what is in a GGUF file, and whether lazygguf runs it.

Owns the report and its two forms, text and JSON. It reads metadata only, and weights where --check-tensors asks.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Optional

from lazygguf._ffi import NativeFile, TensorInfo, isa, isa_names, list_devices
from lazygguf.cli.main import EXIT_ERROR, say_error
from lazygguf.cli.printable import printable
from lazygguf.errors import LazyError
from lazygguf.files.model_file import fingerprint, shipped_profile, windowed_layers
from lazygguf.schedule.keep import resolve_keep
from lazygguf.schedule.keep_schedule import PROFILE_KEY

from .weight_check import not_finite_tensors

SHOWN_ITEMS = 3  # of an array
SHOWN_CHARS = 100  # of a string
F16_BYTES = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``lazygguf inspect``."""
    parser.add_argument("file", metavar="FILE", help="a GGUF file")
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    parser.add_argument("--check-tensors", action="store_true", help="read all weights, name tensors with NaN or Inf")
    parser.add_argument("-v", "--verbose", action="store_true", help="say which kernels this machine runs, too")
    parser.add_argument("--json", action="store_true", help="as JSON, arrays and strings whole")


def run(args: argparse.Namespace) -> int:
    """Prints the report; 1 when lazygguf does not run the model."""
    report = inspect(args.file, with_tensors=args.tensors, check_tensors=args.check_tensors)
    if args.verbose:
        report["machine"] = machine()
    if args.json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        sys.stdout.write(printable(to_text(report)))
    return 0 if report["supported"] and not report.get("not_finite") else EXIT_ERROR


def inspect(path: str, with_tensors: bool = False, check_tensors: bool = False) -> dict[str, Any]:
    """What is in a GGUF file.

    Args:
        path: the file.
        with_tensors: list every tensor.
        check_tensors: read all weights.

    Returns:
        ``file``, ``size`` (bytes), ``architecture``, ``n_params``, ``n_ctx_train``, ``kv_bytes_per_token``
        (F16 cache, dense), ``tensor_types`` (count and bytes by type), ``supported``, ``reason`` (why not),
        ``keep`` (what "auto" comes to), ``gpus`` (by GPU of this machine, the kinds of weights and operations that
        it has no kernel for; they stay on the CPU), ``metadata``, and when asked for ``tensors`` and ``not_finite``
        (the names of tensors that hold NaN or infinite values). What a file does not say is None.

    Raises:
        ModelFileError: not a whole GGUF file.
        OSError: it cannot be opened.
    """
    with NativeFile(path) as file:
        metadata, tensors = file.metadata, file.tensors
        reason = _why_not(file)
        report = {
            "file": path,
            "size": file.size,
            "architecture": metadata.get("general.architecture"),
            "n_params": sum(math.prod(tensor.ne) for tensor in tensors),
            "n_ctx_train": _hparam(metadata, "context_length"),
            "kv_bytes_per_token": _kv_bytes_per_token(metadata),
            "n_tensors": len(tensors),
            "tensor_types": _by_type(tensors),
            "supported": reason is None,
            "reason": reason,
            "keep": _keep(path, file) if reason is None else None,
            "gpus": _gpus(file) if reason is None else None,
            "metadata": metadata,
        }
    if check_tensors:
        report["not_finite"] = not_finite_tensors(path, tensors)
    if with_tensors:
        report["tensors"] = [_tensor(tensor) for tensor in tensors]
    return report


def machine() -> dict[str, Any]:
    """This machine's CPU, as ggml names it: ``cpu``, ``isa`` (the instruction set that the kernels use) and ``isas``
    (those that the CPU has, best first: what LAZYGGUF_ISA may name).

    Raises:
        ValueError: LAZYGGUF_ISA names another one.
    """
    cpus = [device.description.strip() for device in list_devices() if device.type == "CPU"]
    return {"cpu": ", ".join(cpus), "isa": isa(), "isas": isa_names()}


def to_text(report: Mapping[str, Any]) -> str:
    """The report as text for people."""
    lines = [
        f"file          {report['file']} ({_bytes(report['size'])})",
        f"architecture  {_or_unknown(report['architecture'])}",
        f"parameters    {report['n_params']:,}",
        f"context       {_or_unknown(report['n_ctx_train'])} tokens",
        f"KV cache      {_or_unknown(report['kv_bytes_per_token'])} bytes per token (F16, dense)",
        f"supported     {'yes' if report['supported'] else 'no: ' + str(report['reason'])}",
        f"keep          {_or_unknown(report['keep'])}",
        *_gpu_lines(report["gpus"] or {}),
        *_machine_lines(report.get("machine")),
        *_checked_lines(report.get("not_finite")),
        "",
        f"{report['n_tensors']} tensors",
    ]
    for type_name, entry in report["tensor_types"].items():
        lines.append(f"  {type_name:8} {entry['count']:5}  {_bytes(entry['bytes']):>12}")
    lines += ["", f"{len(report['metadata'])} metadata keys"]
    lines += [f"  {key} = {_short(value)}" for key, value in report["metadata"].items()]
    if "tensors" in report:
        lines += ["", *(_tensor_line(tensor) for tensor in report["tensors"])]
    return "\n".join(lines) + "\n"


def _why_not(file: NativeFile) -> Optional[str]:
    try:
        file.check()
    except LazyError as error:
        return say_error(error)
    return None


def _keep(path: str, file: NativeFile) -> str:
    """What ``keep="auto"`` comes to and where it comes from, or what is wrong with the file's profile."""
    metadata, shipped = file.metadata, shipped_profile(fingerprint(path, file))
    n_layer, n_head = _hparam(metadata, "block_count"), _hparam(metadata, "attention.head_count")
    try:
        schedule = resolve_keep(
            "auto",
            n_layer=int(n_layer),
            n_head=int(n_head),
            metadata=metadata,
            shipped=shipped,
            windowed=windowed_layers(file),
        )
    except LazyError as error:
        return say_error(error)
    origin = "in the file" if PROFILE_KEY in metadata else "shipped profile" if shipped else "default, no profile"
    return "off" if schedule is None else f"{schedule} ({origin})"


def _gpus(file: NativeFile) -> dict[str, list[str]]:
    names = [device.name for device in list_devices() if device.type in ("GPU", "IGPU")]
    return {name: file.lacking_kernels(name) for name in names}


def _gpu_lines(gpus: Mapping[str, list[str]]) -> list[str]:
    return [
        f"GPU           {name}: " + (f"no kernel for {', '.join(lacks)}: on the CPU" if lacks else "runs every layer")
        for name, lacks in gpus.items()
    ]


def _machine_lines(found: Optional[Mapping[str, Any]]) -> list[str]:
    if found is None:
        return []
    return [f"CPU           {found['cpu']}", f"kernels       {found['isa']} (of {', '.join(found['isas'])})"]


def _checked_lines(names: Optional[list[str]]) -> list[str]:
    if names is None:
        return []
    shown = ", ".join(names[:SHOWN_ITEMS]) + (
        f" and {len(names) - SHOWN_ITEMS} more" if len(names) > SHOWN_ITEMS else ""
    )
    return [f"weights       {'NaN or infinite values in ' + shown if names else 'all are numbers'}"]


def _hparam(metadata: Mapping[str, Any], name: str) -> Any:
    return metadata.get(f"{metadata.get('general.architecture')}.{name}")


def _kv_bytes_per_token(metadata: Mapping[str, Any]) -> Optional[int]:
    n_layer, n_embd, n_head = (
        _hparam(metadata, name) for name in ("block_count", "embedding_length", "attention.head_count")
    )
    if not all(isinstance(value, int) and value > 0 for value in (n_layer, n_embd, n_head)):
        return None
    n_head_kv = _hparam(metadata, "attention.head_count_kv") or n_head
    n_embd_head = _hparam(metadata, "attention.key_length") or n_embd // n_head
    if not isinstance(n_head_kv, int) or not isinstance(n_embd_head, int):
        return None
    return 2 * F16_BYTES * int(n_layer) * n_head_kv * n_embd_head


def _by_type(tensors: Iterable[TensorInfo]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = defaultdict(lambda: {"count": 0, "bytes": 0})
    for tensor in tensors:
        found[tensor.type_name]["count"] += 1
        found[tensor.type_name]["bytes"] += tensor.n_bytes
    return dict(sorted(found.items(), key=lambda item: -item[1]["bytes"]))


def _tensor(tensor: TensorInfo) -> dict[str, Any]:
    shape = list(tensor.ne)
    while len(shape) > 1 and shape[-1] == 1:
        shape.pop()
    return {
        "name": tensor.name,
        "type": tensor.type_name,
        "ne": shape,
        "offset": tensor.offset,
        "bytes": tensor.n_bytes,
    }


def _tensor_line(tensor: Mapping[str, Any]) -> str:
    shape = "[" + ", ".join(str(n) for n in tensor["ne"]) + "]"
    return f"  {tensor['name']:40} {tensor['type']:8} {shape:20} {_bytes(tensor['bytes']):>12}"


def _short(value: Any) -> str:
    if isinstance(value, list):
        shown = ", ".join(_short(item) for item in value[:SHOWN_ITEMS])
        return f"[{shown}]" if len(value) <= SHOWN_ITEMS else f"[{shown}, ...] ({len(value):,} values)"
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=True)
        return text if len(text) <= SHOWN_CHARS else f'{text[:SHOWN_CHARS]}..." ({len(value):,} characters)'
    return f"{value:g}" if isinstance(value, float) else str(value)


def _bytes(n: int) -> str:
    size = float(n)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"


def _or_unknown(value: Any) -> str:
    return "unknown" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
