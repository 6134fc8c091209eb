"""What a conversion will write: hyper-parameters, tokenizer and tensors, before a byte is written.

Owns the plan's data classes, the list of tensors that a Llama-family GGUF must hold with their shapes, and
the metadata keys of the hyper-parameters. It knows no checkpoint format.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import gguf
import numpy as np

from lazygguf.errors import ModelFileError, UnsupportedModelError

from .checkpoint import Concatenated, Constant, Source, Unreadable

MAX_LAYERS = 4096
MAX_VOCAB = 1 << 24  # what the loader takes (native/model/hparams.cpp)
ROPE_FREQS = "rope_freqs.weight"


@dataclass(frozen=True)
class RopeScaling:
    """How positions are stretched; kind is "linear", "yarn" or "llama3"."""

    kind: str
    factor: float
    original_ctx: int = 0  # yarn and llama3: the context the model was trained with before
    low_freq: float = 1.0  # llama3
    high_freq: float = 4.0  # llama3
    yarn: tuple[tuple[str, float], ...] = ()  # further yarn parameters, by GGUF key suffix


@dataclass(frozen=True)
class Hparams:
    """Of a dense decoder of the Llama family."""

    arch: str  # general.architecture
    n_vocab: int
    n_ctx: int
    n_embd: int
    n_ff: int
    n_layer: int
    n_head: int
    n_head_kv: int
    n_embd_head: int
    rms_eps: float
    rope_theta: float
    rope_scaling: Optional[RopeScaling] = None

    def check(self, origin: Path) -> None:
        """Raises ModelFileError unless the numbers describe a model."""
        if self.n_layer > MAX_LAYERS:
            raise ModelFileError(f"{origin}: n_layer is {self.n_layer}, more than any model has")
        if self.n_vocab > MAX_VOCAB:
            raise ModelFileError(f"{origin}: vocab_size is {self.n_vocab}, expected at most {MAX_VOCAB}")
        for name in ("n_vocab", "n_ctx", "n_embd", "n_ff", "n_layer", "n_head", "n_head_kv", "n_embd_head"):
            if not 0 < getattr(self, name) < 1 << 31:
                raise ModelFileError(f"{origin}: {name} is {getattr(self, name)}")
        if self.n_head % self.n_head_kv:
            raise ModelFileError(f"{origin}: {self.n_head} heads do not divide into {self.n_head_kv} key-value heads")
        if self.n_embd_head % 2:
            raise ModelFileError(f"{origin}: heads of {self.n_embd_head} elements cannot be rotated in pairs")
        for name in ("rms_eps", "rope_theta"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ModelFileError(f"{origin}: {name} is {getattr(self, name)}")


@dataclass(frozen=True)
class OutTensor:
    """One tensor of the file to write; source rows are what goes in, in GGUF's row order."""

    name: str
    source: Source


@dataclass(frozen=True)
class Original:
    """The tokenizer that a vocabulary was made from, as its own library reads it."""

    path: Path
    encode: Callable[[str], list[int]]
    with_control: bool  # its texts of control tokens become those tokens
    with_space_first: bool = True  # a text that begins with a space is split as llama.cpp splits it


@dataclass(frozen=True)
class Vocab:
    """A tokenizer in GGUF's terms."""

    model: str  # "llama" (SentencePiece) or "gpt2" (byte-level BPE)
    pre: str
    tokens: list[bytes]
    types: Sequence[int]
    scores: Optional[list[float]] = None
    merges: Optional[list[str]] = None
    special_ids: Mapping[str, int] = field(default_factory=dict)  # "bos" -> id
    add_special: Mapping[str, bool] = field(default_factory=dict)  # "bos" -> whether the tokenizer adds it
    add_space_prefix: Optional[bool] = None
    chat_template: Any = None  # text, or named templates as gguf takes them
    original: Optional[Original] = field(default=None, compare=False)


@dataclass
class ModelPlan:
    """Everything that convert needs to write a model."""

    source: Path
    hparams: Hparams
    vocab: Vocab
    tensors: list[OutTensor]
    notes: list[str] = field(default_factory=list)  # what the files leave open and how it was read

    @property
    def n_params(self) -> int:
        return sum(t.source.n_elements for t in self.tensors)


def expected_tensors(hp: Hparams) -> dict[str, tuple[tuple[int, ...], bool]]:
    """Every tensor that the model may have, in file order: its NumPy shape, and whether it must be there.

    Raises:
        UnsupportedModelError: lazygguf has no such architecture.
    """
    from lazygguf._ffi import shape_tensors  # late: the converter needs the native core only here

    sizes = ("n_vocab", "n_embd", "n_layer", "n_head", "n_head_kv", "n_embd_head", "n_ff")
    rules = shape_tensors(hp.arch, **{name: getattr(hp, name) for name in sizes})
    return {rule.name: (rule.ne[:1] if rule.ne[1] == 1 else (rule.ne[1], rule.ne[0]), rule.required) for rule in rules}


def ordered_tensors(hp: Hparams, found: Mapping[str, Source], tied: bool, origin: Path) -> list[OutTensor]:
    """The found tensors in file order, each checked against the hyper-parameters.

    Args:
        hp: The hyper-parameters.
        found: Tensors by GGUF name; all of them must have a place in the model.
        tied: Whether the output matrix is the embedding, so that output.weight is left out.
        origin: Named in errors.
    """
    rules = expected_tensors(hp)
    rules.pop(ROPE_FREQS, None)  # computed below
    must_be = {name for name, (_, required) in rules.items() if required} | (set() if tied else {"output.weight"})
    missing = [name for name in rules if name in must_be and name not in found]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelFileError(f"{origin}: the tensor for {missing[0]}{more} is missing; the checkpoint is not whole")
    for name in found:
        if name not in rules:
            raise UnsupportedModelError(f"{origin}: {name} has no place in a {hp.arch} model of {hp.n_layer} layers")
    expected = {name: shape for name, (shape, _) in rules.items() if name in found}
    for name, shape in expected.items():
        source = found[name]
        if source.shape != shape:
            raise ModelFileError(f"{origin}: {name} has the shape {list(source.shape)}, expected {list(shape)}")
        parts = source.parts if isinstance(source, Concatenated) else [source]
        for part in parts:
            if isinstance(part, Unreadable):
                raise ModelFileError(part.why)
    tensors = [OutTensor(name, found[name]) for name in expected]
    if hp.rope_scaling is not None and hp.rope_scaling.kind == "llama3":
        tensors.insert(0, OutTensor(ROPE_FREQS, Constant(llama3_rope_freqs(hp, hp.rope_scaling))))
    return tensors


def llama3_rope_freqs(hp: Hparams, scaling: RopeScaling) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Llama 3.1's rope factors (n_embd_head / 2,): the divisor of each rotation frequency.

    Waves shorter than original_ctx / high_freq stay, those longer than original_ctx / low_freq are stretched
    by factor, those between are blended.
    """
    one = np.float32(1.0)
    exponents = np.arange(0, hp.n_embd_head, 2, dtype=np.float32) / np.float32(hp.n_embd_head)
    freqs = one / np.float32(hp.rope_theta) ** exponents
    factors = []
    for freq in freqs:  # in float32 and in this order, as llama.cpp's converter: the same bits
        wavelen = one / freq * np.float32(2 * math.pi)
        if wavelen < scaling.original_ctx / scaling.high_freq:
            factors.append(one)
        elif wavelen > scaling.original_ctx / scaling.low_freq:
            factors.append(np.float32(scaling.factor))
        else:
            ratio = one / wavelen * np.float32(scaling.original_ctx) - np.float32(scaling.low_freq)
            smooth = ratio / np.float32(scaling.high_freq - scaling.low_freq)
            factors.append(one / ((one - smooth) / np.float32(scaling.factor) + smooth))
    return np.array(factors, dtype=np.float32)


def add_hparams(writer: gguf.GGUFWriter, hp: Hparams) -> None:
    """Writes the architecture's keys."""
    writer.add_block_count(hp.n_layer)
    writer.add_context_length(hp.n_ctx)
    writer.add_embedding_length(hp.n_embd)
    writer.add_feed_forward_length(hp.n_ff)
    writer.add_head_count(hp.n_head)
    writer.add_head_count_kv(hp.n_head_kv)
    writer.add_rope_freq_base(hp.rope_theta)
    writer.add_layer_norm_rms_eps(hp.rms_eps)
    writer.add_vocab_size(hp.n_vocab)
    writer.add_rope_dimension_count(hp.n_embd_head)
    writer.add_key_length(hp.n_embd_head)
    writer.add_value_length(hp.n_embd_head)
    scaling = hp.rope_scaling
    if scaling is None or scaling.kind == "llama3":  # llama3 is a tensor, rope_freqs.weight
        return
    writer.add_rope_scaling_type(gguf.RopeScalingType(scaling.kind))
    writer.add_rope_scaling_factor(scaling.factor)
    if scaling.kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(scaling.original_ctx)
        for suffix, value in scaling.yarn:
            writer.add_float32(f"{hp.arch}.rope.scaling.{suffix}", value)


def add_vocab(writer: gguf.GGUFWriter, vocab: Vocab) -> None:
    """Writes the tokenizer's keys."""
    if vocab.add_space_prefix is not None:
        writer.add_add_space_prefix(vocab.add_space_prefix)
    writer.add_tokenizer_model(vocab.model)
    writer.add_tokenizer_pre(vocab.pre)
    writer.add_token_list(vocab.tokens)
    if vocab.scores is not None:
        writer.add_token_scores(vocab.scores)
    writer.add_token_types(vocab.types)
    if vocab.merges:
        writer.add_token_merges(vocab.merges)
    for kind, token_id in vocab.special_ids.items():
        add_id = getattr(writer, f"add_{kind}_token_id", None)
        if add_id is not None:
            add_id(token_id)
    for kind, value in vocab.add_special.items():
        add_flag = getattr(writer, f"add_add_{kind}_token", None)
        if add_flag is not None:
            add_flag(value)
    if vocab.chat_template is not None:
        writer.add_chat_template(vocab.chat_template)
