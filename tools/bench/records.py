"""The rows as JSON: llama-bench's field names, its three kinds of test, and the fields that are ours.

A row becomes three records, as llama-bench names such tests: pp2048 (the prompt), tg64 @ d2048 (tokens one at a
time, after so many), pp2048+tg64 (both, the first token sampled between them). What describes the row as a whole
(ttft_ms, the bytes, the share) stands in all three; times and ratios are the test's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from lazygguf import __version__

from .contenders import LAZYGGUF
from .engines import TYPE_KV, Settings
from .facts import Machine, ModelFacts, engine_version
from .rows import Row


@dataclass(frozen=True)
class Conditions:
    """What all rows have in common."""

    model: ModelFacts
    machine: Machine
    settings: Settings
    text: str  # what was read: the path of a text, or "random tokens"


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
        ratios = {"ratio_dense": row.ratio_dense(part), "ratio_llama_cpp": row.ratio_llama_cpp(part)}
        records.append({"test": name, **common, **counts, **_times(row, part), **_ours(row), **ratios})
    return records


def _common(conditions: Conditions, row: Row) -> dict[str, Any]:
    model, machine, settings = conditions.model, conditions.machine, conditions.settings
    engine = row.contender.engine
    return {
        "engine": engine,
        "engine_version": engine_version(engine),
        "lazygguf_version": __version__,
        "build_commit": machine.build_commit,  # of the ggml that both engines run on
        "build_number": None,  # llama-bench counts commits; the library does not tell
        "cpu_info": machine.cpu_info,
        "gpu_info": machine.gpu_info,
        "backends": machine.backends,
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
        "flash_attn": 1,
        "weights": settings.weights if engine == LAZYGGUF else "as-is",
        "draft_filename": settings.draft,
        "use_mmap": True,
        "text": conditions.text,
    }


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
