"""Blocks of stored weights become blocks of a GGUF tensor type.

Owns the choice of a tensor's type and the conversions between float types and to Q8_0. A value that the
target type cannot hold is an error, never an infinity.
"""

from __future__ import annotations

from typing import Any, Optional

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from numpy.typing import NDArray

from lazygguf.errors import UnsupportedModelError

from .checkpoint import Source
from .plan import OutTensor

OUTTYPES = {"f32": Type.F32, "f16": Type.F16, "bf16": Type.BF16, "q8_0": Type.Q8_0}
FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}
_SAME = {"F32": Type.F32, "F16": Type.F16, "BF16": Type.BF16}
_Q8_BLOCK = 32

_bf16_as_f16: Optional[NDArray[np.float16]] = None


def resolve_auto(outtype: str, tensors: list[OutTensor]) -> str:
    """ "auto" becomes the 16-bit type of the first matrix that has one, else f16."""
    if outtype != "auto":
        return outtype
    for tensor in tensors:
        if len(tensor.source.shape) >= 2 and tensor.source.dtype in ("F16", "BF16"):
            return tensor.source.dtype.lower()
    return "f16"


def type_of(tensor: OutTensor, outtype: str) -> Type:
    """The GGUF type of a tensor: vectors stay F32, rows that Q8_0 blocks do not fit become F16."""
    if len(tensor.source.shape) <= 1:
        return Type.F32
    wanted = OUTTYPES[outtype]
    if wanted == Type.Q8_0 and tensor.source.shape[-1] % _Q8_BLOCK:
        return Type.F16
    return wanted


def n_bytes(source: Source, kind: Type) -> int:
    """Bytes of a tensor in the file."""
    return tensor_bytes(source.n_elements, kind)


def tensor_bytes(n_elements: int, kind: Type) -> int:
    """Bytes of so many elements in a type; they are whole blocks of it."""
    per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    return n_elements // per_block * int(block_bytes)


def is_plain_copy(source: Source, kind: Type) -> bool:
    """Whether the stored bytes are already the file's."""
    return _SAME[source.dtype] == kind


def convert_block(name: str, block: NDArray[Any], dtype: str, kind: Type) -> NDArray[Any]:
    """One block of rows in the file's type, contiguous.

    Args:
        name: The tensor, for errors.
        block: Stored elements; BF16 as uint16.
        dtype: What they are.
        kind: What the file holds.
    """
    if _SAME[dtype] == kind:
        return np.ascontiguousarray(block)
    if kind == Type.F16:
        return _to_f16(name, block, dtype)
    floats = _to_f32(block, dtype)
    if kind == Type.F32:
        return floats
    result: NDArray[Any] = gguf.quants.quantize(floats, kind)
    return result


def _to_f32(block: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    if dtype == "BF16":
        wide = block.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    return np.ascontiguousarray(block, dtype=np.float32)


def _to_f16(name: str, block: NDArray[Any], dtype: str) -> NDArray[np.float16]:
    if dtype == "BF16":
        return _bf16_to_f16(name, np.ascontiguousarray(block))
    try:
        with np.errstate(over="raise"):
            return block.astype(np.float16)
    except FloatingPointError:
        raise _too_large(name, float(np.abs(block).max())) from None


def _bf16_to_f16(name: str, bits: NDArray[np.uint16]) -> NDArray[np.float16]:
    """By table: all 65536 values, which is twice as fast as the way over float32."""
    global _bf16_as_f16
    if _bf16_as_f16 is None:
        with np.errstate(over="ignore"):
            values = (np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32)
            _bf16_as_f16 = values.astype(np.float16)
    largest = int((bits & np.uint16(0x7FFF)).max())  # the magnitude's order is the order of its bits
    if 0x477F < largest < 0x7F80:  # above 65280, below infinity
        raise _too_large(name, float(_to_f32(np.array([largest], dtype=np.uint16), "BF16")[0]))
    return _bf16_as_f16[bits]


def _too_large(name: str, value: float) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{name} holds {value:g}, more than f16 can (65504); convert with --outtype bf16 or f32"
    )
