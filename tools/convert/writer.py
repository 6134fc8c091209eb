"""GGUF files are written: metadata by the gguf package, the tensors of a plan converted and streamed block by block.

Owns the types of the tensors, their conversion, the order of the file, and the memory: a few blocks at a time, whatever
the model's size. A value that a type cannot hold is an error, never an infinity. A written file is read again with the
loader's checks. It writes to the path it is given; that this is a temporary name is atomic_file's business.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Callable, Optional

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from numpy.typing import NDArray

from lazygguf.errors import LazyError, ModelFileError, UnsupportedModelError

from ..quantize.quant_types import QUANT_TYPES
from .checkpoint import Source
from .json_file import Config, optional_json
from .plan import Hparams, ModelPlan, OutTensor, Vocab, add_hparams, add_vocab

OUTTYPES = {"f32": Type.F32, "f16": Type.F16, "bf16": Type.BF16, "q8_0": Type.Q8_0}
_Q8_BLOCK = 32

_bf16_as_f16: Optional[NDArray[np.float16]] = None
BLOCK_ELEMENTS = 4 * 1024 * 1024
N_WORKERS = 2  # conversion keeps ahead of a disk; more only costs memory
ALIGNMENT = gguf.GGUF_DEFAULT_ALIGNMENT


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


def tensor_bytes(n_elements: int, kind: Type) -> int:
    """Bytes of so many elements in a type; they are whole blocks of it."""
    per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    return n_elements // per_block * int(block_bytes)


def convert_block(name: str, block: NDArray[Any], dtype: str, kind: Type) -> NDArray[Any]:
    """One block of rows in the file's type, contiguous.

    Args:
        name: The tensor, for errors.
        block: Stored elements; BF16 as uint16.
        dtype: What they are.
        kind: What the file holds.
    """
    if Type[dtype] == kind:
        return np.ascontiguousarray(block)
    if kind == Type.F16:
        return _to_f16(name, block, dtype)
    floats = _to_f32(block, dtype)
    if kind == Type.F32:
        return floats
    with np.errstate(invalid="ignore"):  # NaN is noted by tensor
        return np.asarray(gguf.quants.quantize(floats, kind))


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
        raise _too_large(name, float(np.abs(block[np.isfinite(block)]).max())) from None


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


def data_bytes(plan: ModelPlan, outtype: str) -> int:
    """Bytes of all tensors in the file, padded."""
    return sum(_padded(tensor_bytes(t.source.n_elements, type_of(t, outtype))) for t in plan.tensors)


def header_bytes(plan: ModelPlan) -> int:
    """About the bytes of metadata and tensor table."""
    return table_bytes(plan.vocab, len(plan.tensors))


def table_bytes(vocab: Vocab, n_tensors: int) -> int:
    """About the bytes of metadata and tensor table, by what fills them."""
    text = sum(len(token) + 8 for token in vocab.tokens) + sum(len(m.encode()) + 8 for m in vocab.merges or [])
    return text + 8 * len(vocab.tokens) + len(repr(vocab.chat_template)) + 96 * n_tensors + 4096


# keys of generation_config.json that a GGUF file has a key for, and the field of the gguf package
_SAMPLING: dict[str, tuple[str, type]] = {
    "top_k": ("sampling_top_k", int), "top_p": ("sampling_top_p", float), "min_p": ("sampling_min_p", float),
    "temperature": ("sampling_temp", float), "xtc_probability": ("sampling_xtc_probability", float),
    "xtc_threshold": ("sampling_xtc_threshold", float), "penalty_last_n": ("sampling_penalty_last_n", int),
    "penalty_repeat": ("sampling_penalty_repeat", float), "mirostat": ("sampling_mirostat", int),
    "mirostat_tau": ("sampling_mirostat_tau", float), "mirostat_eta": ("sampling_mirostat_eta", float),
}  # fmt: skip


def load_metadata(plan: ModelPlan, name: Optional[str]) -> gguf.Metadata:
    """general.* from the folder's name, model card and sampling settings; name overrides general.name."""
    folder = plan.source.resolve()
    try:
        card = gguf.Metadata.load_model_card(folder)
        config = optional_json(folder / "config.json")
        metadata = gguf.Metadata.apply_metadata_heuristic(gguf.Metadata(), card, config, folder, plan.n_params)
        _check_writable(metadata)
    except Exception as error:  # a model card is free text; the model does not depend on it
        plan.notes.append(f"the model card could not be read ({type(error).__name__}): only the name is written")
        metadata = gguf.Metadata()
    settings = Config(folder / "generation_config.json", optional_json(folder / "generation_config.json"))
    for key, (slot, kind) in _SAMPLING.items():
        if settings.has(key):
            try:
                setattr(metadata, slot, settings.integer(key) if kind is int else settings.number(key))
            except ModelFileError as error:
                plan.notes.append(f"{error}: left out")
    metadata.name = name or metadata.name or folder.name
    if metadata.size_label is None and plan.n_params:
        metadata.size_label = gguf.size_label(plan.n_params, plan.n_params, 0, 0)
    return metadata


def _check_writable(metadata: gguf.Metadata) -> None:
    """Raises where the gguf package cannot write what it took from a model card."""
    with tempfile.TemporaryDirectory(prefix="lazygguf-card-") as folder:
        writer = gguf.GGUFWriter(path=Path(folder) / "card.gguf", arch="llama")
        try:
            metadata.set_gguf_meta_model(writer)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
        finally:
            writer.close()


@dataclass(frozen=True)
class Header:
    """All of a file but the tensors' data."""

    hparams: Hparams
    vocab: Vocab
    metadata: gguf.Metadata  # general.* keys
    file_type: int  # the llama_ftype that the file says it is
    tensors: Sequence[tuple[str, tuple[int, ...], Type]]  # name, NumPy shape and type of each, in file order


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
) -> dict[str, int]:
    """Writes and fsyncs the file.

    Returns:
        By the name of a tensor, how many of its values are NaN or infinite; only tensors that have some.

    Args:
        plan: What to write; a plan without tensors gives a vocabulary file.
        path: Created or overwritten.
        outtype: A key of OUTTYPES.
        metadata: general.* keys.
        progress: Called with the bytes of each block that was written.
    """
    tensors = [(t.name, t.source.shape, type_of(t, outtype)) for t in plan.tensors]
    header = Header(plan.hparams, plan.vocab, metadata, QUANT_TYPES[outtype.upper()].ftype, tensors)
    not_finite: dict[str, int] = {}
    with gguf_file(path, header) as file, ThreadPoolExecutor(N_WORKERS) as pool:
        for tensor in plan.tensors:
            written = 0
            for block, n_odd in _blocks(tensor, outtype, pool):
                if n_odd:
                    not_finite[tensor.name] = not_finite.get(tensor.name, 0) + n_odd
                file.write(block.reshape(-1).view(np.uint8).data)
                written += block.nbytes
                progress(block.nbytes)
            expected = tensor_bytes(tensor.source.n_elements, type_of(tensor, outtype))
            if written != expected:
                raise ModelFileError(f"{tensor.name}: {written} bytes were written, expected {expected}")
            pad_tensor(file, written)
    return not_finite


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


_EXPONENT = {"F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80}  # all ones: NaN or infinity


def count_not_finite(block: NDArray[Any], dtype: str) -> int:
    """How many of the stored elements are NaN or infinite."""
    bits = block.view(np.uint32 if dtype == "F32" else np.uint16)
    exponent = bits.dtype.type(_EXPONENT[dtype])
    return int(np.count_nonzero((bits & exponent) == exponent))


def _blocks(tensor: OutTensor, outtype: str, pool: ThreadPoolExecutor) -> Iterator[tuple[NDArray[Any], int]]:
    """The tensor's blocks in order, each with the count of stored values that are not finite; the work runs a few
    blocks ahead."""
    source, kind = tensor.source, type_of(tensor, outtype)
    n_rows = source.shape[0]
    step = max(1, BLOCK_ELEMENTS * n_rows // source.n_elements)
    ranges = [(begin, min(begin + step, n_rows)) for begin in range(0, n_rows, step)]

    def convert(begin: int, end: int) -> tuple[NDArray[Any], int]:
        stored = np.ascontiguousarray(source.rows(begin, end))
        return convert_block(tensor.name, stored, source.dtype, kind), count_not_finite(stored, source.dtype)

    running: deque[tuple[Future[tuple[NDArray[Any], int]], int, int]] = deque()
    for begin, end in ranges:
        running.append((pool.submit(convert, begin, end), begin, end))
        if len(running) > N_WORKERS:
            yield from _next(source, running)
    while running:
        yield from _next(source, running)


def _next(
    source: Source, running: deque[tuple[Future[tuple[NDArray[Any], int]], int, int]]
) -> Iterator[tuple[NDArray[Any], int]]:
    """The next block; its rows are released when it was used, since it may be a view of them."""
    future, begin, end = running.popleft()
    yield future.result()
    source.release(begin, end)


# the checks load ggml, which the rest of a conversion does not need


def check_input(path: Path) -> None:
    """Raises unless the loader would take the file as a model: container, keys, tensors, vocabulary."""
    from lazygguf._ffi import NativeFile

    with NativeFile(path) as file:
        file.check()


def check_written(path: Path) -> None:
    """The same for a file of our own."""
    try:
        check_input(path)
    except LazyError as error:
        raise type(error)(
            f"the file just written does not pass the loader's check, so it was removed: {error}"
        ) from error


def check_against_plan(path: Path, plan: ModelPlan, outtype: str) -> None:
    """Raises unless the file holds the plan and the loader takes it; a vocabulary file is not loaded."""
    from lazygguf._ffi import NativeFile

    if plan.tensors:
        check_written(path)
    with NativeFile(path) as file:
        found = [(t.name, _without_ones(t.ne), t.type_name) for t in file.tensors]
        n_tokens = len(file.metadata["tokenizer.ggml.tokens"])
    planned = [(t.name, _without_ones(tuple(reversed(t.source.shape))), type_of(t, outtype).name) for t in plan.tensors]
    if found != planned or n_tokens != len(plan.vocab.tokens):
        odd = next((pair for pair in zip(found, planned) if pair[0] != pair[1]), (len(found), len(planned)))
        raise ModelFileError(f"the file just written differs from the plan: {odd[0]}, expected {odd[1]}")


def _without_ones(ne: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in ne if n != 1)
