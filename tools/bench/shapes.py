"""Models of a known shape with random weights, to measure what is not at hand.

Owns the shapes and the file: every tensor in the type that llama.cpp's quantizer would give it, a vocabulary that
loads and has the words of the text that bench reads, and random weights, as fast as a disk takes them. What such a
model says means nothing; how long it takes and what it holds are those of a real one.
"""

from __future__ import annotations

import math
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Callable

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Type

from ..atomic_file import atomic_output, check_space, scratch_file, shown_bytes
from ..convert.plan import Hparams, Vocab, expected_tensors
from ..convert.writer import ALIGNMENT, Header, check_input, gguf_file, pad_tensor, table_bytes, tensor_bytes
from ..progress_bar import byte_bar
from ..quantize.command import QuantizeOptions, run_quantizer
from ..quantize.quant_types import COPY, QuantType
from .ggml_calls import quantize_rows
from .text import TEXT

Shapes = dict[str, tuple[int, ...]]
Types = dict[str, Type]

# primes: about a million weights of a type, whatever its block
_N_BLOCKS = {256: 4093, 32: 32749, 1: 1048573}
_ROW_BLOCKS = {256: 1, 32: 8, 1: 256}  # at a time into ggml: 256 weights, a row of any type
_NORM_SPREAD = 0.1

_LLAMA2_7B = Hparams(
    arch="llama",
    n_vocab=32000,
    n_ctx=4096,
    n_embd=4096,
    n_ff=11008,
    n_layer=32,
    n_head=32,
    n_head_kv=32,
    n_embd_head=128,
    rms_eps=1e-5,
    rope_theta=10000.0,
)
SHAPES = {
    "llama2-7b": _LLAMA2_7B,
    "llama3-8b": replace(_LLAMA2_7B, n_vocab=128256, n_ctx=8192, n_ff=14336, n_head_kv=8, rope_theta=500000.0),
    "tinyllama-1.1b": replace(_LLAMA2_7B, n_ctx=2048, n_embd=2048, n_ff=5632, n_layer=22, n_head_kv=4, n_embd_head=64),
}


def shape_file(name: str, hparams: Hparams, kind: QuantType, folder: Path) -> Path:
    """The model of a shape in a folder, made where it is not there yet.

    Raises:
        ValueError: a type that is none, or that the gguf package does not know.
        OSError: the folder does not exist, the disk is too small, or a file that is no such model is in the way.
    """
    if kind.name == COPY:
        raise ValueError(f"--type {COPY}: random weights have no type of their own, name one such as Q4_K_M")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: no such folder")
    path = folder / f"{name}.{kind.name}.random-words.gguf"
    if path.exists():
        check_input(path)
        print(f"{path}: there already, used again", file=sys.stderr)
        return path
    vocab, shapes = make_vocab(hparams.n_vocab), tensor_shapes(hparams)
    types = mixed_types(hparams, vocab, kind, path)
    n_bytes = sum(tensor_bytes(math.prod(shape), types[tensor]) for tensor, shape in shapes.items())
    check_space(folder, n_bytes + ALIGNMENT * len(shapes) + table_bytes(vocab, len(shapes)))
    tensors = [(tensor, shapes[tensor], types[tensor]) for tensor in shapes]
    print(f"making {path}: random weights, {shown_bytes(n_bytes)}", file=sys.stderr)
    header = Header(hparams, vocab, gguf.Metadata(name=path.name), kind.ftype, tensors)
    with atomic_output(path, force=False) as scratch:
        with byte_bar("writing", n_bytes) as progress:
            write_random(header, scratch, progress)
        check_input(scratch)
    return path


def tensor_shapes(hparams: Hparams) -> Shapes:
    """Name and NumPy shape of every tensor, in file order, with an output matrix of its own."""
    rules = expected_tensors(hparams).items()
    return {name: shape for name, (shape, required) in rules if required or name == "output.weight"}


def make_vocab(n_vocab: int) -> Vocab:
    """A SentencePiece vocabulary: three specials, the bytes, words, and names that no text has; all different.

    The words are those of the text that bench reads, so that it has about as many tokens as in a real vocabulary: a
    draft reads the same text with its own.
    """
    tokens = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
    n_base = len(tokens)
    if n_vocab < n_base:
        raise ValueError(f"n_vocab is {n_vocab}, expected at least {n_base}: the specials and the bytes")
    tokens += _word_begins(TEXT.read_text(encoding="utf-8"))[: n_vocab - n_base]
    tokens += [f"<random{i}>".encode() for i in range(len(tokens), n_vocab)]
    kinds = gguf.TokenType
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256, *[kinds.NORMAL] * (n_vocab - n_base)]
    return Vocab(
        model="llama",
        pre="default",
        tokens=tokens,
        types=[int(kind) for kind in types],
        scores=[0.0] * n_base + [-float(i) for i in range(n_base, n_vocab)],
        special_ids={"unk": 0, "bos": 1, "eos": 2},
        add_special={"bos": True},
    )


def _word_begins(text: str) -> list[bytes]:
    """Each word of a text with the sign before it, and all its begins: SentencePiece joins two tokens at a time.

    Frequent words come first.
    """
    words = Counter(re.findall(r"\W\w+", text))
    begins = {word[:n]: None for word, _ in words.most_common() for n in range(2, len(word) + 1)}
    return [begin.replace(" ", "\u2581").encode() for begin in begins]


def mixed_types(hparams: Hparams, vocab: Vocab, kind: QuantType, beside: Path) -> Types:
    """The type that llama.cpp's quantizer gives each tensor.

    It is asked itself, in a dry run over a stand-in whose matrices have two rows: the rule looks at names, layers
    and the length of rows.

    Args:
        hparams: of the model.
        vocab: of the model.
        kind: what the quantizer is asked for.
        beside: a path in the folder where the stand-in may be, for a moment.
    """
    small = [
        (name, shape if len(shape) == 1 else (2, *shape[1:]), Type.F32 if len(shape) == 1 else Type.F16)
        for name, shape in tensor_shapes(hparams).items()
    ]
    with scratch_file(beside.with_name(f"{beside.name}.types")) as stand_in:
        header = Header(hparams, vocab, gguf.Metadata(name=beside.name), kind.ftype, small)
        with gguf_file(stand_in, header) as file:
            for _, shape, tensor_kind in small:
                n_bytes = tensor_bytes(math.prod(shape), tensor_kind)
                file.write(bytes(n_bytes))
                pad_tensor(file, n_bytes)
        options = QuantizeOptions(ftype=kind.ftype, dry_run=True)
        result = run_quantizer(stand_in, stand_in.with_suffix(".none"), options, lambda done, total: None)
    found = {name: _type(type_name) for name, type_name in result.types}
    missing = [name for name, _, _ in small if name not in found]
    if missing:
        raise ValueError(f"llama.cpp's quantizer gave no type for {missing[0]}")
    return found


def write_random(header: Header, path: Path, progress: Callable[[int], None]) -> None:
    """Writes and fsyncs a model of random weights."""
    blocks = RandomBlocks(std=header.hparams.n_embd**-0.5)
    with gguf_file(path, header) as file:
        for name, shape, kind in header.tensors:
            written = 0
            for piece in blocks.pieces(name, shape, kind):
                file.write(piece)
                written += len(piece)
                progress(len(piece))
            pad_tensor(file, written)


def _type(name: str) -> Type:
    try:
        return Type[name.upper()]
    except KeyError:
        raise ValueError(f"the installed gguf package does not know the type {name}") from None


class RandomBlocks:
    """Makes the data of tensors, straight in a quantized type.

    One chunk of each type is random floats quantized by ggml itself, so that its blocks are of the kind that real ones
    are and every scale is finite. A tensor is that chunk over and over, from a place of its own. The chunk's number of
    blocks is prime, so that the rows of a matrix do not repeat until they have begun at every block of it.

    Args:
        std: standard deviation of the weights; 1 / sqrt(n_embd) keeps activations near one.
        seed: the same gives the same weights.
    """

    def __init__(self, std: float, seed: int = 0) -> None:
        self._std = std
        self._seed = seed

    def pieces(self, name: str, shape: tuple[int, ...], kind: Type) -> Iterator[memoryview]:
        """The bytes of a tensor, in order. Vectors are the gains of norms, near one, in F32."""
        rng = np.random.default_rng((self._seed, zlib.crc32(name.encode())))
        if len(shape) == 1:
            if kind != Type.F32:
                raise ValueError(f"{name} is a vector in {kind.name}, expected F32")
            yield rng.normal(1.0, _NORM_SPREAD, shape).astype("<f4").view(np.uint8).data
            return
        blocks = _random_chunk(kind, self._std, self._seed)
        left = tensor_bytes(int(np.prod(shape, dtype=np.int64)), kind)
        begin = int(rng.integers(len(blocks)))
        while left > 0:
            piece = blocks[begin:].reshape(-1)[:left]
            yield piece.data
            left -= piece.size
            begin = 0


@cache
def _random_chunk(kind: Type, std: float, seed: int) -> npt.NDArray[np.uint8]:
    """(n_blocks, block_bytes), a prime number of blocks."""
    per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    n_blocks = _N_BLOCKS[per_block]
    n_rows = -(-n_blocks // _ROW_BLOCKS[per_block])
    rng = np.random.default_rng((seed, int(kind)))
    values = rng.standard_normal((n_rows, per_block * _ROW_BLOCKS[per_block]), np.float32) * np.float32(std)
    return quantize_rows(values, kind).reshape(-1, block_bytes)[:n_blocks]
