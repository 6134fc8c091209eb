"""What a benchmark ran on (model, machine, versions), and its rows as JSON with llama-bench's field names.

A row becomes three records, as llama-bench names such tests: pp2048 (the prompt), tg64 @ d2048 (tokens one at a
time, after so many), pp2048+tg64 (both, the first token sampled between them). What describes the row as a whole
(ttft_ms, the bytes, the share) stands in all three; times and ratios are the test's own.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from importlib.metadata import version
from statistics import fmean, stdev
from typing import Any, Optional

import llama_cpp

from lazygguf import __version__
from lazygguf._ffi import NativeFile, isa, list_devices
from lazygguf.files.model_file import ModelFile

from ..schedule_options import ModelShape
from . import ggml_calls
from .contenders import IK, LAZYGGUF, LLAMA_CPP
from .engines import TYPE_KV, Settings
from .peer import PeerFacts
from .timing import Row

# What llama.cpp's system info calls an instruction set, and what LAZYGGUF_ISA does; best first.
_ISAS = {
    "AVX512_VNNI": "avx512vnni",
    "AVX512": "avx512",
    "AVX_VNNI": "avxvnni",
    "AVX2": "avx2",
    "AVX": "avx",
    "MATMUL_INT8": "i8mm",
    "DOTPROD": "dotprod",
    "NEON": "neon",
}


@dataclass(frozen=True)
class ModelFacts:
    """Of a GGUF file, without its weights."""

    path: str  # the file
    model_type: str  # architecture, size and main type, such as "llama 6.74 B Q4_K"
    n_bytes: int  # of all tensors
    n_params: int  # weights
    n_vocab: int  # tokens in the vocabulary
    n_ctx_train: int  # tokens of context it was trained with
    shape: ModelShape  # what schedules must fit


@dataclass(frozen=True)
class Machine:
    """The hardware and the library, named as llama-bench names them."""

    cpu_info: str
    gpu_info: str
    backends: str
    build_commit: str  # of the ggml that both engines run on
    isa: str  # the instruction set that lazygguf's kernels use


def model_facts(path: str, has_draft: bool = False) -> ModelFacts:
    """Reads them.

    Raises:
        LazyError, OSError: lazygguf does not run the file.
    """
    file = ModelFile.read(path)
    by_type: dict[str, int] = {}
    with NativeFile(path) as opened:
        for tensor in opened.tensors:
            by_type[tensor.type_name] = by_type.get(tensor.type_name, 0) + tensor.n_bytes
    n_params = file.size.n_params
    arch, main_type = file.metadata["general.architecture"], max(by_type, key=by_type.__getitem__)
    n_layer, n_head = file.hparam("block_count"), file.hparam("attention.head_count")
    return ModelFacts(
        path=path,
        model_type=f"{arch} {_shown_params(n_params)} {main_type}",
        n_bytes=sum(by_type.values()),
        n_params=n_params,
        n_vocab=len(file.metadata["tokenizer.ggml.tokens"]),
        n_ctx_train=file.hparam("context_length"),
        shape=ModelShape(n_layer, n_head, file.metadata, file.shipped, has_draft, file.windowed),
    )


def machine() -> Machine:
    """This machine."""
    found = list_devices()
    kinds = ("CPU", "ACCEL"), ("GPU", "IGPU")  # as llama-bench sums up
    cpu, gpu = (", ".join(d.description.strip() for d in found if d.type in kind) for kind in kinds)
    return Machine(cpu, gpu, ",".join(ggml_calls.backends()), ggml_calls.commit(), isa())


def _shown_params(n: int) -> str:
    return f"{n / 1e9:.2f} B" if n >= 1e9 else f"{n / 1e6:.2f} M"


@dataclass(frozen=True)
class Conditions:
    """What all rows have in common."""

    model: ModelFacts
    machine: Machine
    settings: Settings
    text: str  # what was read: the path of a text, or "random tokens"
    peer: Optional[PeerFacts] = None  # where one was measured


def describe(conditions: Conditions) -> str:
    """Model and machine in one line."""
    model, machine, settings = conditions.model, conditions.machine, conditions.settings
    where = ", ".join(filter(None, (settings.device or machine.gpu_info, settings.rpc_servers)))
    placed = f"{settings.n_gpu_layers} layers on the GPU by {settings.placement}"
    gpu = f", {where}, {placed}" if settings.n_gpu_layers else ""
    isas = f"kernels: lazygguf {machine.isa}, ggml {engine_isa(LLAMA_CPP, conditions)}"
    flash = "flash attention"
    if conditions.peer is not None:
        isas += f", {IK} {conditions.peer.version} {engine_isa(IK, conditions)}"
        flash += "" if settings.peer_flash_attn else f" (not {IK})"
    return (
        f"{model.model_type}, {model.n_bytes / 2**20:,.0f} MiB; {settings.n_threads} threads of {machine.cpu_info}"
        f"{gpu}; {isas}; n_ubatch {settings.n_ubatch}, {flash}, weights {settings.weights}"
    )


def to_records(rows: list[Row], conditions: Conditions) -> list[dict[str, Any]]:
    """Three records a row."""
    return [record for row in rows for record in _records(row, conditions)]


def _records(row: Row, conditions: Conditions) -> list[dict[str, Any]]:
    common = _common(conditions, row)
    tests = (
        (f"pp{row.n_prompt}", "prefill", (row.n_prompt, 0, 0)),
        (f"tg{row.n_gen} @ d{row.n_prompt}", "decode", (0, row.n_gen, row.n_prompt)),
        (f"pp{row.n_prompt}+tg{row.n_gen}", "total", (row.n_prompt, row.n_gen, 0)),
    )
    records = []
    for name, part, (n_prompt, n_gen, n_depth) in tests:
        counts = {"n_prompt": n_prompt, "n_gen": n_gen, "n_depth": n_depth, "test_time": row.test_time}
        ratios = {
            "ratio_dense": row.ratio_dense(part),
            "ratio_llama_cpp": row.ratio_llama_cpp(part),
            "ratio_ik": row.ratio_ik(part),
        }
        records.append({"test": name, **common, **counts, **_times(row, part), **_ours(row), **ratios})
    return records


def _common(conditions: Conditions, row: Row) -> dict[str, Any]:
    model, machine, settings = conditions.model, conditions.machine, conditions.settings
    engine = row.contender.engine
    return {
        "engine": engine,
        "engine_version": _engine_version(engine, conditions),
        "engine_isa": engine_isa(engine, conditions),
        "lazygguf_version": __version__,
        "build_number": None,  # llama-bench counts commits; the library does not tell
        **asdict(machine),
        "model_filename": model.path,
        "model_type": model.model_type,
        "model_size": model.n_bytes,
        "model_n_params": model.n_params,
        "n_batch": settings.n_ubatch,
        "n_ubatch": settings.n_ubatch,
        "n_threads": settings.n_threads,
        "type_k": TYPE_KV,
        "type_v": TYPE_KV,
        "n_gpu_layers": settings.n_gpu_layers,
        "devices": settings.device,
        "rpc_servers": settings.rpc_servers,
        "placement": settings.placement,
        "flash_attn": int(engine != IK or settings.peer_flash_attn),
        "weights": settings.weights if engine == LAZYGGUF else "as-is",
        "draft_filename": settings.draft,
        "use_mmap": True,
        "text": conditions.text,
    }


def _engine_version(engine: str, conditions: Conditions) -> str:
    if engine == IK and conditions.peer is not None:
        return conditions.peer.version
    return version("llama-cpp-python") if engine == LLAMA_CPP else __version__


def engine_isa(engine: str, conditions: Conditions) -> str:
    """The instruction set of its kernels."""
    if engine == LAZYGGUF:
        return conditions.machine.isa
    if engine == IK and conditions.peer is not None:
        return isa_of(conditions.peer.system_info)
    return llama_cpp_isa()


def llama_cpp_isa() -> str:
    """The instruction set of the ggml that llama-cpp-python brings."""
    return isa_of(llama_cpp.llama_print_system_info().decode("ascii", "replace"))


def isa_of(system_info: str) -> str:
    """The best instruction set that llama.cpp's line of system info has ("AVX2 = 1 | AVX512 = 0"); "plain" for none."""
    found = set(re.findall(r"(\w+) = 1", system_info))
    return next((isa for name, isa in _ISAS.items() if name in found), "plain")


def _times(row: Row, part: str) -> dict[str, Any]:
    nanoseconds = [round(seconds * 1e9) for seconds in row.seconds(part)]
    rates = [row.tokens(part) / seconds for seconds in row.seconds(part)]
    return {
        "avg_ns": round(fmean(nanoseconds)),
        "stddev_ns": round(stdev(nanoseconds)) if len(nanoseconds) > 1 else 0,
        "avg_ts": fmean(rates),
        "stddev_ts": stdev(rates) if len(rates) > 1 else 0.0,
        "samples_ns": nanoseconds,
        "samples_ts": rates,
    }


def _ours(row: Row) -> dict[str, Any]:
    contender, last = row.contender, row.samples[-1]
    return {
        "keep": contender.keep,
        "schedule": None if contender.schedule is None else contender.schedule.to_dict(),
        "ttft_ms": row.spread("ttft").median * 1e3,
        "tokens_computed_pct": 100.0 * row.token_share,
        "draft_ms": row.spread("draft").median * 1e3,
        "draft_pct": 100.0 * row.draft_share,
        "ideal_speedup": row.ideal_speedup,
        "reached": row.reached,
        "kv_bytes": last.kv_bytes,
        "aux_bytes": last.aux_bytes,
        "peak_bytes": row.peak_bytes,
        "logits_hash": row.logits_hash,
    }
