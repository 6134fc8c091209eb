"""``lazygguf bench --kernels``: our product of a matrix with rows beside ggml's, by type and number of rows.

The table of ``native/kernels/choice.cpp``, which says where ggml's is taken, comes from this. It is a table and not a
measurement made while a model is opened: two processes on one machine must give the same numbers.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Optional

from lazygguf._ffi import kernel_seconds

from .records import llama_cpp_isa, machine

TYPES = (
    *("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"),
)
ROWS = (1, 4, 64, 512)  # a decode step, one that brings tokens back, a short ubatch and a full one
N_IN = N_OUT = 2048


@dataclass(frozen=True)
class KernelRow:
    """One type and number of rows. Billions of floating-point operations per second."""

    type: str
    n_rows: int
    ours: float
    ggml: float

    @property
    def ratio(self) -> float:
        """Ours as a multiple of ggml's."""
        return self.ours / self.ggml


def gflops(type_name: str, n_rows: int, is_ours: bool, n_threads: int) -> float:
    """Of one product; 0.0 where there is no such kernel."""
    seconds = kernel_seconds(type_name, N_IN, N_OUT, n_rows, is_ours=is_ours, n_threads=n_threads)
    return 2e-9 * N_IN * N_OUT * n_rows / seconds if seconds else 0.0


def measure(n_threads: int) -> list[KernelRow]:
    """Every type and number of rows, ours and ggml's in turn."""
    rows = []
    for type_name in TYPES:
        for n_rows in ROWS:
            ours, ggml = (gflops(type_name, n_rows, is_ours, n_threads) for is_ours in (True, False))
            if ours and ggml:
                rows.append(KernelRow(type_name, n_rows, ours, ggml))
    return rows


def verdict(rows: list[KernelRow]) -> Optional[str]:
    """What stands in the table for a type whose rows these are: None where ours is the faster one on the whole."""
    slower = [row for row in rows if row.ratio < 0.97]
    return f"ggml is faster with {', '.join(str(row.n_rows) for row in slower)} rows" if slower else None


def run_kernels(n_threads: int, *, as_json: bool) -> int:
    """Prints the table; 0."""
    here, rows = machine(), measure(n_threads)
    ggml = llama_cpp_isa()
    if as_json:
        known = {"isa": here.isa, "engine_isa": ggml, "cpu_info": here.cpu_info, "n_threads": n_threads}
        print(json.dumps([{**asdict(row), "ratio": row.ratio, **known} for row in rows], indent=2))
        return 0
    print(f"{here.cpu_info}; kernels: lazygguf {here.isa}, ggml {ggml}; {n_threads} threads, {N_IN} x {N_OUT}")
    print("GFLOP/s ours / ggml (ratio)" + "".join(f"{f'{n} rows':>23}" for n in ROWS))
    for type_name in TYPES:
        own = [row for row in rows if row.type == type_name]
        cells = "".join(f"{row.ours:8.1f} /{row.ggml:7.1f} {row.ratio:5.2f}" for row in own)
        print(f"{type_name:27}{cells}  {verdict(own) or ''}".rstrip())
    return 0
