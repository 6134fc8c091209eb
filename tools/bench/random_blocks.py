"""Random weights straight in a quantized type, as fast as a disk takes them.

One chunk of each type is random floats quantized by ggml itself, so that its blocks are of the kind that real ones
are and every scale is finite. A tensor is that chunk over and over, from a place of its own. The chunk's number of
blocks is prime, so that the rows of a matrix do not repeat until they have begun at every block of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Type

from ..convert.payload import tensor_bytes
from .ggml_calls import quantize_rows

# primes: about a million weights of a type, whatever its block
_N_BLOCKS = {256: 4093, 32: 32749, 1: 1048573}
_ROW_BLOCKS = {256: 1, 32: 8, 1: 256}  # at a time into ggml: 256 weights, a row of any type
_NORM_SPREAD = 0.1


class RandomBlocks:
    """Makes the data of tensors.

    Args:
        std: standard deviation of the weights; 1 / sqrt(n_embd) keeps activations near one.
        seed: the same gives the same weights.
    """

    def __init__(self, std: float, seed: int = 0) -> None:
        self._std = std
        self._seed = seed
        self._chunks: dict[Type, npt.NDArray[np.uint8]] = {}

    def pieces(self, name: str, shape: tuple[int, ...], kind: Type) -> Iterator[memoryview]:
        """The bytes of a tensor, in order. Vectors are the gains of norms, near one, in F32."""
        rng = np.random.default_rng((self._seed, zlib.crc32(name.encode())))
        if len(shape) == 1:
            if kind != Type.F32:
                raise ValueError(f"{name} is a vector in {kind.name}, expected F32")
            yield rng.normal(1.0, _NORM_SPREAD, shape).astype("<f4").view(np.uint8).data
            return
        blocks = self._chunk(kind)
        left = tensor_bytes(int(np.prod(shape, dtype=np.int64)), kind)
        begin = int(rng.integers(len(blocks)))
        while left > 0:
            piece = blocks[begin:].reshape(-1)[:left]
            yield piece.data
            left -= piece.size
            begin = 0

    def _chunk(self, kind: Type) -> npt.NDArray[np.uint8]:
        """(n_blocks, block_bytes), a prime number of blocks."""
        if kind not in self._chunks:
            self._chunks[kind] = _random_chunk(kind, self._std, self._seed)
        return self._chunks[kind]


def _random_chunk(kind: Type, std: float, seed: int) -> npt.NDArray[np.uint8]:
    per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    n_blocks = _N_BLOCKS[per_block]
    n_rows = -(-n_blocks // _ROW_BLOCKS[per_block])
    rng = np.random.default_rng((seed, int(kind)))
    values = rng.standard_normal((n_rows, per_block * _ROW_BLOCKS[per_block]), np.float32) * np.float32(std)
    return quantize_rows(values, kind).reshape(-1, block_bytes)[:n_blocks]
