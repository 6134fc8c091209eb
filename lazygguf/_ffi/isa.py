"""The instruction set that the native kernels use in this process."""

from __future__ import annotations

from .library import ffi, lib, text


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
