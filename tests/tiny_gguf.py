"""Tiny GGUF models for tests: seeded, valid, written in milliseconds.

Owns what such a file holds: hyper-parameters, a working tokenizer and weights of the wanted type. The
container itself is written by ``write_raw_gguf``, which checks nothing, so that corruption tests can write
what a real writer would refuse: wrong value types, shapes that do not fit the data, keys twice.
"""

from __future__ import annotations

import ctypes
import importlib.util
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, NamedTuple, Union

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType, quants

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
BPE_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
ARCHS = ("llama", "qwen2", "qwen3")  # those that are tried with every type of weights
QK_NORM_ARCHS = ("qwen3", "gemma3", "olmo2")  # Q and K are normed; olmo2: all heads together
POST_NORM_ARCHS = ("gemma3", "olmo2")  # what attention and the feed-forward network add is normed
NORM_ROPE_ARCHS = ("llama", "granite", "smollm3")  # rotate pairs (2i, 2i+1), the others (i, i + n_rot/2)
# What every tokenizer needs before text pieces come: specials and 256 bytes.
N_VOCAB_MIN = 3 + 256

TOKEN_NORMAL, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_BYTE = 1, 2, 3, 6

_ALIGNMENT = 32
_SCALAR_FORMATS = {
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT64: "d",
}


class Kv(NamedTuple):
    """One metadata value; ``sub_type`` is the element type of an ARRAY."""

    value: Any
    type: GGUFValueType
    sub_type: GGUFValueType | None = None


class Tensor(NamedTuple):
    """One tensor as the file holds it.

    ``data`` are the bytes, ``shape`` (NumPy order) and ``type`` are what the file says about them. ``offset``
    counts from the start of the data section; None: right after the tensors before.
    """

    data: np.ndarray
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int | None = None

    @classmethod
    def of(cls, values: np.ndarray, type_name: str = "F32") -> Tensor:
        """Quantizes float ``values`` to a ggml type such as "Q4_0"."""
        ggml_type = GGMLQuantizationType[type_name]
        return cls(_quantize(np.asarray(values, np.float32), ggml_type), ggml_type, tuple(values.shape))

    def values(self) -> np.ndarray:
        """The dequantised contents, float32, in the shape of the data."""
        return quants.dequantize(self.data, self.type)


KvPairs = Union[Mapping[str, Kv], Iterable[tuple[str, Kv]]]
TensorPairs = Union[Mapping[str, Tensor], Iterable[tuple[str, Tensor]]]
Overrides = Callable[[dict[str, Kv], dict[str, Tensor]], None]


@dataclass(frozen=True)
class TinyConfig:
    """Hyper-parameters of a tiny model. Defaults make a GQA ``llama`` with an SPM tokenizer."""

    arch: str = "llama"  # general.architecture
    n_vocab: int = 320  # at least N_VOCAB_MIN
    n_ctx_train: int = 512
    n_embd: int = 64
    n_layer: int = 6
    n_head: int = 4
    n_head_kv: int = 2
    head_dim: int = 0  # 0: n_embd / n_head
    qkv_bias: bool = False  # qwen2 always has it
    n_ff: int = 96
    weight_type: str = "F32"
    tied: bool = False  # no output.weight
    rope_freqs: bool = False  # llama only: a llama3 style rope_freqs.weight
    rope_scaling: str = "none"  # or "linear", "yarn"
    rope_scaling_factor: float = 4.0
    n_ctx_orig: int = 128  # yarn only
    rope_freq_base: float = 10000.0
    window: int = 0  # gemma3 and olmo2: positions that a layer with a window sees
    window_every: int = 0  # every so many-th layer has none; 0: as the architecture has it, without a key
    window_freq_base: float = 0.0  # gemma3: of the layers with a window; 0: 10,000, without a key
    embd_scale: float = 0.0  # granite, as the following; 0: no key
    residual_scale: float = 0.0
    attn_scale: float = 0.0
    logit_scale: float = 1.0
    logit_softcap: float = 0.0  # gemma3
    rms_eps: float = 1e-5
    seed: int = 0
    tokenizer: str = "spm"  # or "bpe"
    chat_template: str | None = CHATML
    add_bos_token: bool = True

    @classmethod
    def for_type(cls, weight_type: str, **changes: Any) -> TinyConfig:
        """The defaults, with rows that are whole blocks of ``weight_type``, and ``changes``."""
        block = GGML_QUANT_SIZES[GGMLQuantizationType[weight_type]][0]
        shape = {"n_embd": 256, "n_ff": 512, "n_layer": 4} if block > 32 else {}
        if changes.get("arch") == "qwen3":
            shape["head_dim"] = 128 if block > 32 else 32  # twice what n_embd / n_head gives
        return cls(**{"weight_type": weight_type, **shape, **changes})

    @property
    def n_embd_head(self) -> int:
        return self.head_dim or self.n_embd // self.n_head

    def has_window(self, il: int) -> bool:
        """Whether a layer sees a window only."""
        every = self.window_every or {"gemma3": 6, "olmo2": 4}.get(self.arch, 1)
        return self.window > 0 and il % every < every - 1

    def rotates(self, il: int) -> bool:
        """Whether a layer rotates Q and K."""
        return self.arch != "smollm3" or (il + 1) % 4 != 0

    @property
    def n_embd_q(self) -> int:
        return self.n_embd_head * self.n_head

    @property
    def n_embd_kv(self) -> int:
        return self.n_embd_head * self.n_head_kv


def write_tiny_gguf(
    path: str | Path, config: TinyConfig, *, overrides: Overrides | None = None
) -> dict[str, np.ndarray]:
    """Writes a model and returns its weights.

    Args:
        path: The file to write.
        config: What to write; the same config gives the same bytes.
        overrides: Called with the metadata and the tensors before they are written, to change both in place.

    Returns:
        The dequantised weights by GGUF tensor name, float32, (n_out, n_in), exactly as in the file.
    """
    kv = tiny_kv(config)
    tensors = {
        name: Tensor.of(values, config.weight_type if values.ndim > 1 else "F32")
        for name, values in tiny_weights(config).items()
    }
    if overrides is not None:
        overrides(kv, tensors)
    write_raw_gguf(path, kv, tensors)
    return {name: tensor.values() for name, tensor in tensors.items()}


def write_changed(
    path: Path | str,
    config: TinyConfig,
    kv: Mapping[str, Kv | None] | None = None,
    tensors: Mapping[str, Tensor | None] | None = None,
) -> None:
    """The model of a configuration with changes; None takes a pair or a tensor away."""
    weights = {name: Tensor.of(values) for name, values in tiny_weights(config).items()}
    changed_kv, changed = {**tiny_kv(config), **(kv or {})}, {**weights, **(tensors or {})}
    write_raw_gguf(
        path,
        {key: value for key, value in changed_kv.items() if value is not None},
        {name: tensor for name, tensor in changed.items() if tensor is not None},
    )


def write_raw_gguf(path: str | Path, kv: KvPairs, tensors: TensorPairs, *, version: int = 3) -> None:
    """Writes a GGUF container without checking anything. Pairs in place of mappings may repeat names."""
    kv_pairs = list(kv.items() if isinstance(kv, Mapping) else kv)
    tensor_pairs = list(tensors.items() if isinstance(tensors, Mapping) else tensors)
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensor_pairs), len(kv_pairs))
    for key, value in kv_pairs:
        head += _pack_string(key) + struct.pack("<I", value.type) + _pack_value(value)
    body = b""
    for name, tensor in tensor_pairs:
        offset = len(body) if tensor.offset is None else tensor.offset
        shape = tensor.shape[::-1]  # ggml order
        head += _pack_string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, tensor.type, offset)
        body += _pad(tensor.data.tobytes())
    Path(path).write_bytes(_pad(head) + body)


def tiny_kv(config: TinyConfig) -> dict[str, Kv]:
    """The metadata of a tiny model, in the order of the file."""
    counts = {
        "context_length": config.n_ctx_train,
        "embedding_length": config.n_embd,
        "block_count": config.n_layer,
        "feed_forward_length": config.n_ff,
        "attention.head_count": config.n_head,
        "attention.head_count_kv": config.n_head_kv,
        "rope.dimension_count": config.n_embd_head,
        "vocab_size": config.n_vocab,
    }
    if config.head_dim:
        counts.update({"attention.key_length": config.head_dim, "attention.value_length": config.head_dim})
    kv = {"general.architecture": _str(config.arch), "general.name": _str("tiny")}
    kv.update({f"{config.arch}.{key}": _u32(count) for key, count in counts.items()})
    kv[f"{config.arch}.attention.layer_norm_rms_epsilon"] = _f32(config.rms_eps)
    kv[f"{config.arch}.rope.freq_base"] = _f32(config.rope_freq_base)
    kv.update(_rope_scaling_kv(config))
    kv.update(_special_kv(config))
    kv.update(_spm_kv(config) if config.tokenizer == "spm" else _bpe_kv(config))
    kv["tokenizer.ggml.add_bos_token"] = Kv(config.add_bos_token, GGUFValueType.BOOL)
    if config.chat_template is not None:
        kv["tokenizer.chat_template"] = _str(config.chat_template)
    return kv


def tiny_weights(config: TinyConfig) -> dict[str, np.ndarray]:
    """Random weights before quantization, float32, (n_out, n_in).

    Gains are chosen so that attention is peaked (its scores before softmax have a standard deviation of about
    1.5), each block adds about half of what the residual stream holds, and logits are a few units wide.
    """
    rng = np.random.default_rng(config.seed)
    weights = {"token_embd.weight": _matrix(rng, config.n_vocab, config.n_embd, 0.3 * config.n_embd**0.5)}
    if config.rope_freqs:
        weights["rope_freqs.weight"] = _rope_factors(config.n_embd_head // 2)
    for il in range(config.n_layer):
        block = _block_weights(config, rng)
        weights.update({f"blk.{il}.{name}": values for name, values in block.items()})
    weights["output_norm.weight"] = _norm_weight(rng, config.n_embd)
    if not config.tied:
        weights["output.weight"] = _matrix(rng, config.n_vocab, config.n_embd, 2.0)
    return weights


def _block_weights(config: TinyConfig, rng: np.random.Generator) -> dict[str, np.ndarray]:
    n_embd, n_embd_kv, n_ff = config.n_embd, config.n_embd_kv, config.n_ff
    block = {
        "attn_norm.weight": _norm_weight(rng, n_embd),
        "attn_q.weight": _matrix(rng, config.n_embd_q, n_embd, 1.2),
        "attn_k.weight": _matrix(rng, n_embd_kv, n_embd, 1.2),
        "attn_v.weight": _matrix(rng, n_embd_kv, n_embd, 1.0),
        "attn_output.weight": _matrix(rng, n_embd, config.n_embd_q, 0.5),
        "ffn_norm.weight": _norm_weight(rng, n_embd),
        "ffn_gate.weight": _matrix(rng, n_ff, n_embd, 1.0),
        "ffn_up.weight": _matrix(rng, n_ff, n_embd, 1.0),
        "ffn_down.weight": _matrix(rng, n_embd, n_ff, 0.5),
    }
    if config.arch == "qwen2" or config.qkv_bias:
        block.update(_qkv_biases(config, rng))
    if config.arch in QK_NORM_ARCHS:
        # after its norm a head is about as large as the weights: these make attention as peaked as elsewhere
        wide = config.arch == "olmo2"
        sizes = {
            "q": config.n_embd_q if wide else config.n_embd_head,
            "k": config.n_embd_kv if wide else config.n_embd_head,
        }
        norms = {f"attn_{name}_norm.weight": _norm_weight(rng, n) for name, n in sizes.items()}
        block.update({name: np.float32(1.2) * values for name, values in norms.items()})
    if config.arch in POST_NORM_ARCHS:
        for name in ("post_attention_norm.weight", "post_ffw_norm.weight"):
            block[name] = np.float32(0.3) * _norm_weight(rng, n_embd)
    if config.arch == "olmo2":
        del block["attn_norm.weight"], block["ffn_norm.weight"]
    return block


def _matrix(rng: np.random.Generator, n_out: int, n_in: int, gain: float) -> np.ndarray:
    return rng.normal(0.0, gain / np.sqrt(n_in), (n_out, n_in)).astype(np.float32)


def _norm_weight(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.uniform(0.5, 1.5, n).astype(np.float32)


def _qkv_biases(config: TinyConfig, rng: np.random.Generator) -> dict[str, np.ndarray]:
    sizes = {"attn_q.bias": config.n_embd_q, "attn_k.bias": config.n_embd_kv, "attn_v.bias": config.n_embd_kv}
    return {name: rng.normal(0.0, 0.5, size).astype(np.float32) for name, size in sizes.items()}


def _rope_factors(n: int) -> np.ndarray:
    """Llama 3.1's shape: high frequencies as they are, low ones eight times slower, a ramp between."""
    return np.interp(np.arange(n), [n * 0.25, n * 0.75], [1.0, 8.0]).astype(np.float32)


def _rope_scaling_kv(config: TinyConfig) -> dict[str, Kv]:
    if config.rope_scaling == "none":
        return {}
    prefix = f"{config.arch}.rope.scaling."
    kv = {prefix + "type": _str(config.rope_scaling), prefix + "factor": _f32(config.rope_scaling_factor)}
    if config.rope_scaling == "yarn":
        kv[prefix + "original_context_length"] = _u32(config.n_ctx_orig)
    return kv


def _special_kv(config: TinyConfig) -> dict[str, Kv]:
    """What only some architectures have: windows and scales."""
    numbers = {
        "rope.freq_base_swa": config.window_freq_base,
        "embedding_scale": config.embd_scale,
        "residual_scale": config.residual_scale,
        "attention.scale": config.attn_scale,
        "final_logit_softcapping": config.logit_softcap,
        "logit_scale": config.logit_scale if config.arch == "granite" else 0.0,
    }
    counts = {"attention.sliding_window": config.window, "attention.sliding_window_pattern": config.window_every}
    return {
        **{f"{config.arch}.{key}": _f32(number) for key, number in numbers.items() if number},
        **{f"{config.arch}.{key}": _u32(count) for key, count in counts.items() if count},
    }


# ---- tokenizers ----


def _spm_kv(config: TinyConfig) -> dict[str, Kv]:
    """SentencePiece: <unk>, <s>, </s>, the bytes, then pieces, those that merge first first."""
    pieces = _text_pieces("\u2581", config.n_vocab - N_VOCAB_MIN)
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] + pieces
    scores = [0.0] * N_VOCAB_MIN + [-float(i) for i in range(len(pieces))]
    types = [TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_CONTROL] + [TOKEN_BYTE] * 256 + [TOKEN_NORMAL] * len(pieces)
    return {
        "tokenizer.ggml.model": _str("llama"),
        "tokenizer.ggml.pre": _str("default"),
        "tokenizer.ggml.tokens": _array(tokens, GGUFValueType.STRING),
        "tokenizer.ggml.scores": _array(scores, GGUFValueType.FLOAT32),
        "tokenizer.ggml.token_type": _array(types, GGUFValueType.INT32),
        "tokenizer.ggml.unknown_token_id": _u32(0),
        "tokenizer.ggml.bos_token_id": _u32(1),
        "tokenizer.ggml.eos_token_id": _u32(2),
    }


def _bpe_kv(config: TinyConfig) -> dict[str, Kv]:
    """Byte-level BPE: ChatML's specials, the 256 byte letters, then the results of merges."""
    letters = _byte_letters()
    pieces = [piece for piece in _text_pieces("\u0120", config.n_vocab) if len(piece) > 1]
    pieces = pieces[: config.n_vocab - N_VOCAB_MIN]
    tokens = list(BPE_SPECIALS) + letters + pieces
    types = [TOKEN_CONTROL] * len(BPE_SPECIALS) + [TOKEN_NORMAL] * (len(letters) + len(pieces))
    merges = [f"{piece[:-1]} {piece[-1]}" for piece in pieces if "<" not in piece]
    bos = "<|im_start|>" if config.arch == "llama" else "<|endoftext|>"
    return {
        "tokenizer.ggml.model": _str("gpt2"),
        "tokenizer.ggml.pre": _str("smollm" if config.arch == "llama" else "qwen2"),
        "tokenizer.ggml.tokens": _array(tokens, GGUFValueType.STRING),
        "tokenizer.ggml.token_type": _array(types, GGUFValueType.INT32),
        "tokenizer.ggml.merges": _array(merges, GGUFValueType.STRING),
        "tokenizer.ggml.bos_token_id": _u32(tokens.index(bos)),
        "tokenizer.ggml.eos_token_id": _u32(tokens.index("<|im_end|>")),
    }


def _text_pieces(space: str, n: int) -> list[str]:
    """The first n of: single letters, frequent pairs, words' beginnings, three letters, then fillers.

    Every piece of more than one letter is an earlier piece or letter plus one letter, so merges reach it.
    """
    letters = [space, *"etaoinshrdlucmfwygpbvkxqjz.,?!"]
    pairs = ["th", "he", "in", "er", "an", "re", "on", "at", "en", "or", "is", "es", "it", "st", "ou", "to"]
    starts = [space + letter for letter in "tasoicwbphf"]
    longer = [space + "th", space + "the", "and", "ing", space + "is", space + "to"]
    fillers = [f"<filler{i}>" for i in range(max(0, n))]
    return list(dict.fromkeys(letters + pairs + starts + longer + fillers))[: max(0, n)]


def _byte_letters() -> list[str]:
    """GPT-2's printable letter for each byte, in GPT-2's order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in printable] + [chr(0x100 + i) for i in range(256 - len(printable))]


# ---- bytes ----


def _quantize(values: np.ndarray, ggml_type: GGMLQuantizationType) -> np.ndarray:
    """Encoded rows: floats for F32 and F16, else bytes (n_rows, row_bytes). K-quants are left to ggml."""
    try:
        return quants.quantize(values, ggml_type)
    except NotImplementedError:
        return _ggml_quantize(values, ggml_type)


def _ggml_quantize(values: np.ndarray, ggml_type: GGMLQuantizationType) -> np.ndarray:
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise ImportError(f"llama_cpp is needed to quantize to {ggml_type.name}")
    ggml = ctypes.CDLL(str(Path(spec.origin).parent / "lib" / "libggml-base.so"))
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    rows = np.ascontiguousarray(values, np.float32)
    encoded = np.empty(quants.quant_shape_to_byte_shape(rows.shape, ggml_type), np.uint8)
    n_bytes = ggml.ggml_quantize_chunk(
        ctypes.c_int(ggml_type),
        rows.ctypes.data_as(ctypes.c_void_p),
        encoded.ctypes.data_as(ctypes.c_void_p),
        ctypes.c_int64(0),
        ctypes.c_int64(rows.shape[0]),
        ctypes.c_int64(rows.shape[1]),
        None,
    )
    assert n_bytes == encoded.nbytes, (n_bytes, encoded.nbytes)
    return encoded


def _pack_value(kv: Kv) -> bytes:
    if kv.type == GGUFValueType.STRING:
        return _pack_string(kv.value)
    if kv.type == GGUFValueType.ARRAY:
        assert kv.sub_type is not None, "an array needs a sub_type"
        items = b"".join(_pack_value(Kv(item, kv.sub_type)) for item in kv.value)
        return struct.pack("<IQ", kv.sub_type, len(kv.value)) + items
    return struct.pack("<" + _SCALAR_FORMATS[kv.type], kv.value)


def _pack_string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)


def _str(value: str) -> Kv:
    return Kv(value, GGUFValueType.STRING)


def _u32(value: int) -> Kv:
    return Kv(value, GGUFValueType.UINT32)


def _f32(value: float) -> Kv:
    return Kv(value, GGUFValueType.FLOAT32)


def _array(values: list[Any], sub_type: GGUFValueType) -> Kv:
    return Kv(values, GGUFValueType.ARRAY, sub_type)
