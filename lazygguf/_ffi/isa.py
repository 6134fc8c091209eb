"""The instruction set that the native kernels use in this process."""

from __future__ import annotations

from . import forked
from .library import check, ffi, lib, text


def isa() -> str:
    """Its name, such as "avx2": the best one that this CPU has, or what the variable LAZYGGUF_ISA names.

    Raises:
        ValueError: LAZYGGUF_ISA names none that this CPU has; the message says which there are.
    """
    name = lib.lazy_isa()
    if name == ffi.NULL:
        raise ValueError(text(lib.lazy_last_error()))
    return text(name)


def isa_names() -> list[str]:
    """Those that this CPU has, best first: the values that LAZYGGUF_ISA may have."""
    return text(lib.lazy_isa_names()).split(",")


def kernel_seconds(
    type_name: str, n_in: int, n_out: int, n_rows: int, *, is_ours: bool = True, n_threads: int = 1
) -> float:
    """Times the product of a matrix of noise (n_out, n_in) with n_rows rows.

    Args:
        type_name: of the matrix, such as ``"Q4_K"``.
        n_in: columns, a multiple of the type's block.
        n_out: rows of the matrix.
        n_rows: rows that are multiplied.
        is_ours: our kernel; else ggml's, from the buffers in which it is fastest.
        n_threads: threads.

    Returns:
        Seconds, the best of several runs; 0.0 where there is no such kernel.

    Raises:
        ValueError: there is no such type, or a number is out of range.
    """
    out = ffi.new("double *")
    name = type_name.encode()
    forked.compute(lambda: check(lib.lazy_kernel_seconds(out, name, n_in, n_out, n_rows, is_ours, n_threads)))
    return float(out[0])
