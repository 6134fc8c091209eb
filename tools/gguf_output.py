"""A plan becomes a GGUF file: metadata by the gguf package, tensors streamed block by block.

Owns the order of the file and the memory: a few blocks at a time, whatever the model's size. It writes to the
path it is given; that this is a temporary name is atomic_file's business.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Optional

import gguf
import numpy as np
from numpy.typing import NDArray

from lazygguf.errors import ModelFileError

from .model_plan import ModelPlan, OutTensor, add_hparams, add_vocab
from .payload import FILE_TYPES, convert_block, is_plain_copy, n_bytes, type_of

BLOCK_ELEMENTS = 4 * 1024 * 1024
N_WORKERS = 2  # conversion keeps ahead of a disk; more only costs memory
ALIGNMENT = gguf.GGUF_DEFAULT_ALIGNMENT


def data_bytes(plan: ModelPlan, outtype: str) -> int:
    """Bytes of all tensors in the file, padded."""
    return sum(_padded(n_bytes(t.source, type_of(t, outtype))) for t in plan.tensors)


def header_bytes(plan: ModelPlan) -> int:
    """About the bytes of metadata and tensor table."""
    vocab = plan.vocab
    text = sum(len(token) + 8 for token in vocab.tokens) + sum(len(m.encode()) + 8 for m in vocab.merges or [])
    return text + 8 * len(vocab.tokens) + len(repr(vocab.chat_template)) + 96 * len(plan.tensors) + 4096


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
    writer = gguf.GGUFWriter(path=path, arch=plan.hparams.arch)
    try:
        writer.add_type(gguf.GGUFType.MODEL)
        metadata.set_gguf_meta_model(writer)
        add_hparams(writer, plan.hparams)
        writer.add_file_type(FILE_TYPES[outtype])
        add_vocab(writer, plan.vocab)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for tensor in plan.tensors:
            kind = type_of(tensor, outtype)
            size = n_bytes(tensor.source, kind)
            writer.add_tensor_info(tensor.name, tensor.source.shape, np.dtype(np.float32), size, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        assert writer.fout is not None
        _write_tensors(plan.tensors, writer.fout[0], outtype, progress)
        writer.fout[0].flush()
        os.fsync(writer.fout[0].fileno())
    finally:
        for file in writer.fout or []:
            file.close()


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _write_tensors(tensors: list[OutTensor], file: Any, outtype: str, progress: Callable[[int], None]) -> None:
    file.write(bytes(_padded(file.tell()) - file.tell()))
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
            file.write(bytes(_padded(written) - written))


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
