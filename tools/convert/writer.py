"""GGUF files are written: metadata by the gguf package, the tensors of a plan streamed block by block.

Owns the order of the file and the memory: a few blocks at a time, whatever the model's size. It writes to the
path it is given; that this is a temporary name is atomic_file's business.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Callable, Optional

import gguf
import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from lazygguf.errors import ModelFileError

from .payload import FILE_TYPES, convert_block, is_plain_copy, n_bytes, tensor_bytes, type_of
from .plan import Hparams, ModelPlan, OutTensor, Vocab, add_hparams, add_vocab

BLOCK_ELEMENTS = 4 * 1024 * 1024
N_WORKERS = 2  # conversion keeps ahead of a disk; more only costs memory
ALIGNMENT = gguf.GGUF_DEFAULT_ALIGNMENT


def data_bytes(plan: ModelPlan, outtype: str) -> int:
    """Bytes of all tensors in the file, padded."""
    return sum(_padded(n_bytes(t.source, type_of(t, outtype))) for t in plan.tensors)


def header_bytes(plan: ModelPlan) -> int:
    """About the bytes of metadata and tensor table."""
    return table_bytes(plan.vocab, len(plan.tensors))


def table_bytes(vocab: Vocab, n_tensors: int) -> int:
    """About the bytes of metadata and tensor table, by what fills them."""
    text = sum(len(token) + 8 for token in vocab.tokens) + sum(len(m.encode()) + 8 for m in vocab.merges or [])
    return text + 8 * len(vocab.tokens) + len(repr(vocab.chat_template)) + 96 * n_tensors + 4096


def load_metadata(plan: ModelPlan, name: Optional[str]) -> gguf.Metadata:
    """general.* from the folder's name and model card; name overrides general.name."""
    try:
        metadata = gguf.Metadata.load(None, plan.source.resolve(), name, plan.n_params)
    except Exception as error:  # a model card is free text; the model does not depend on it
        plan.notes.append(f"the model card could not be read ({type(error).__name__}): only the name is written")
        metadata = gguf.Metadata(name=name)
    metadata.name = metadata.name or plan.source.resolve().name
    if metadata.size_label is None and plan.n_params:
        metadata.size_label = gguf.size_label(plan.n_params, plan.n_params, 0, 0)
    return metadata


@dataclass(frozen=True)
class Header:
    """All of a file but the tensors' data.

    Attributes:
        metadata: general.* keys.
        file_type: the llama_ftype that the file says it is.
        tensors: name, NumPy shape and type of each, in file order.
    """

    hparams: Hparams
    vocab: Vocab
    metadata: gguf.Metadata
    file_type: int
    tensors: Sequence[tuple[str, tuple[int, ...], GGMLQuantizationType]]


@contextlib.contextmanager
def gguf_file(path: Path, header: Header) -> Iterator[BinaryIO]:
    """Writes the header; the block writes the tensors' data, each padded with pad_tensor. Fsyncs at its end."""
    writer = gguf.GGUFWriter(path=path, arch=header.hparams.arch)
    try:
        writer.add_type(gguf.GGUFType.MODEL)
        header.metadata.set_gguf_meta_model(writer)
        add_hparams(writer, header.hparams)
        writer.add_file_type(header.file_type)
        add_vocab(writer, header.vocab)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for name, shape, kind in header.tensors:
            size = tensor_bytes(math.prod(shape), kind)
            writer.add_tensor_info(name, shape, np.dtype(np.float32), size, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        assert writer.fout is not None
        file = writer.fout[0]
        file.write(bytes(_padded(file.tell()) - file.tell()))
        yield file
        file.flush()
        os.fsync(file.fileno())
    finally:
        for file in writer.fout or []:
            file.close()


def pad_tensor(file: BinaryIO, written: int) -> None:
    """Fills up to where the next tensor may begin."""
    file.write(bytes(_padded(written) - written))


def write_gguf(
    plan: ModelPlan, path: Path, outtype: str, metadata: gguf.Metadata, progress: Callable[[int], None]
) -> None:
    """Writes and fsyncs the file.

    Args:
        plan: What to write; a plan without tensors gives a vocabulary file.
        path: Created or overwritten.
        outtype: A key of payload.OUTTYPES.
        metadata: general.* keys.
        progress: Called with the bytes of each block that was written.
    """
    tensors = [(t.name, t.source.shape, type_of(t, outtype)) for t in plan.tensors]
    header = Header(plan.hparams, plan.vocab, metadata, FILE_TYPES[outtype], tensors)
    with gguf_file(path, header) as file:
        _write_tensors(plan.tensors, file, outtype, progress)


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _write_tensors(tensors: list[OutTensor], file: BinaryIO, outtype: str, progress: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(N_WORKERS) as pool:
        for tensor in tensors:
            written = 0
            for block in _blocks(tensor, outtype, pool):
                file.write(block.reshape(-1).view(np.uint8).data)
                written += block.nbytes
                progress(block.nbytes)
            expected = n_bytes(tensor.source, type_of(tensor, outtype))
            if written != expected:
                raise ModelFileError(f"{tensor.name}: {written} bytes were written, expected {expected}")
            pad_tensor(file, written)


def _blocks(tensor: OutTensor, outtype: str, pool: ThreadPoolExecutor) -> Iterator[NDArray[Any]]:
    """The tensor's blocks in order; conversion runs a few blocks ahead, plain copies come from the map."""
    source, kind = tensor.source, type_of(tensor, outtype)
    n_rows = source.shape[0]
    step = max(1, BLOCK_ELEMENTS * n_rows // source.n_elements)
    ranges = [(begin, min(begin + step, n_rows)) for begin in range(0, n_rows, step)]
    if is_plain_copy(source, kind):
        for begin, end in ranges:
            yield np.ascontiguousarray(source.rows(begin, end))
            source.release(begin, end)
        return

    def convert(begin: int, end: int) -> NDArray[Any]:
        return convert_block(tensor.name, source.rows(begin, end), source.dtype, kind)

    running: deque[tuple[Future[NDArray[Any]], int, int]] = deque()
    for begin, end in ranges:
        running.append((pool.submit(convert, begin, end), begin, end))
        if len(running) > N_WORKERS:
            yield _next(source, running)
    while running:
        yield _next(source, running)


def _next(source: Any, running: deque[tuple[Future[NDArray[Any]], int, int]]) -> NDArray[Any]:
    future, begin, end = running.popleft()
    block = future.result()
    source.release(begin, end)
    return block
