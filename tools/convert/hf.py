"""A Hugging Face folder becomes a plan: config.json, tokenizer files and weights of the Llama family.

Owns what config.json means, the names of the tensors and the order of their rows. Whatever the family does
not have (experts, sliding windows, quantized weights, other ropes) is refused by name.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import numpy as np

from lazygguf.errors import ModelFileError, UnsupportedModelError

from .checkpoint import FileTensor, HalvesInterleaved, Source, Unreadable
from .hf_weights import read_weights
from .json_file import (
    ATTENTION_FACTOR_RANGE,
    EPS_RANGE,
    FACTOR_RANGE,
    THETA_RANGE,
    Config,
    optional_json,
    read_json,
    shown,
)
from .plan import Hparams, ModelPlan, RopeScaling, Vocab, ordered_tensors
from .vocab.bpe import read_bpe
from .vocab.spm import read_spm
from .vocab.spm_json import is_spm_json, read_spm_json
from .vocab.tiktoken import is_tiktoken

ARCHS = {"LlamaForCausalLM": "llama", "LLaMAForCausalLM": "llama", "MistralForCausalLM": "llama",
         "Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3"}  # fmt: skip
SUPPORTED = "LlamaForCausalLM, MistralForCausalLM without sliding window, Qwen2ForCausalLM and Qwen3ForCausalLM"

_TOP = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_BLOCK = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
_HEAD_DIM = {"qwen3": 128}
_COMPUTED = (".rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias")  # buffers, not weights


def plan_hf(folder: Path, n_ctx: Optional[int], pre: Optional[str], vocab_only: bool) -> ModelPlan:
    """The plan for a Hugging Face folder.

    Args:
        folder: Holds config.json.
        n_ctx: Overrides the context length of config.json.
        pre: Overrides how a BPE tokenizer splits text.
        vocab_only: Plan the tokenizer and no tensors; weights need not be there.
    """
    config = Config(folder / "config.json", read_json(folder / "config.json"))
    arch = _architecture(config)
    notes: list[str] = []
    tensors = {} if vocab_only else _gguf_names(folder, read_weights(folder), arch)
    hp = _hparams(config, arch, tensors, n_ctx, notes)
    hp.check(config.path)
    tied = False if vocab_only else _resolve_tied(config, tensors, notes)
    if arch == "llama":
        _pair_rotated_rows(tensors, hp)
    ordered = [] if vocab_only else ordered_tensors(hp, tensors, tied, folder)
    return ModelPlan(folder, hp, read_vocab(folder, arch, hp.n_vocab, pre, notes), ordered, notes)


def _architecture(config: Config) -> str:
    names = config.values.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if not isinstance(name, str):
        raise ModelFileError(f"{config.path}: no architectures; {SUPPORTED} are converted")
    if name not in ARCHS:
        raise UnsupportedModelError(
            f"{config.path}: the architecture is {shown(name)[1:-1]}; {SUPPORTED} are converted"
        )
    if config.values.get("quantization_config"):
        method = config.values["quantization_config"]
        method = method.get("quant_method") if isinstance(method, dict) else method
        raise UnsupportedModelError(
            f"{config.path}: the weights are quantized ({shown(method)}); convert the original model, "
            "then use --quantize"
        )
    act = config.values.get("hidden_act", "silu")
    if act not in ("silu", "swish"):
        raise UnsupportedModelError(f"{config.path}: hidden_act is {shown(act)}; silu is converted")
    return ARCHS[name]


def _gguf_names(folder: Path, tensors: dict[str, Source], arch: str) -> dict[str, Source]:
    """Tensors by GGUF name; a tensor that has none is refused."""
    renamed: dict[str, Source] = {}
    for name, source in tensors.items():
        if name.endswith(_COMPUTED):
            continue
        new = _TOP.get(name)
        match = re.fullmatch(r"model\.layers\.(\d{1,6})\.(.+)\.(weight|bias)", name)
        if match and match[2] in _BLOCK and (match[3] == "weight" or "norm" not in match[2]):
            new = f"blk.{int(match[1])}.{_BLOCK[match[2]]}.{match[3]}"
        if new is None:
            raise UnsupportedModelError(f"{folder}: the tensor {shown(name)} has no place in a {arch} model")
        renamed[new] = source
    return renamed


def _hparams(config: Config, arch: str, tensors: dict[str, Source], n_ctx: Optional[int], notes: list[str]) -> Hparams:
    n_embd, n_head = config.integer("hidden_size"), config.integer("num_attention_heads")
    fixed = _HEAD_DIM.get(arch)  # transformers' own default where it is not hidden_size / num_attention_heads
    if n_head <= 0 or (not config.has("head_dim") and fixed is None and n_embd % n_head):
        raise ModelFileError(f"{config.path}: hidden_size {n_embd} does not divide into {n_head} heads")
    n_embd_head = config.integer("head_dim", fixed or n_embd // n_head)
    n_vocab = config.integer("vocab_size")
    embedding = tensors.get("token_embd.weight")
    if embedding is not None and embedding.shape[0] != n_vocab:
        raise ModelFileError(
            f"{config.path}: vocab_size is {n_vocab}, the embedding has {embedding.shape[0]} rows; they must agree"
        )
    rope = _rope_values(config)
    if not config.has("rms_norm_eps"):
        notes.append("config.json gives no rms_norm_eps: 1e-06, transformers' own default")
    if not rope.has("rope_theta"):
        notes.append("config.json gives no rope_theta: 10000, transformers' own default")
    n_ctx = n_ctx if n_ctx is not None else config.integer("max_position_embeddings")
    _refuse_sliding_window(config, arch, n_ctx)
    return Hparams(
        arch=arch,
        n_vocab=n_vocab,
        n_ctx=n_ctx,
        n_embd=n_embd,
        n_ff=config.integer("intermediate_size"),
        n_layer=config.integer("num_hidden_layers"),
        n_head=n_head,
        n_head_kv=_n_head_kv(config, tensors, n_head, n_embd_head, notes),
        n_embd_head=n_embd_head,
        rms_eps=config.number("rms_norm_eps", 1e-6, *EPS_RANGE),
        rope_theta=rope.number("rope_theta", 10000.0, *THETA_RANGE),
        rope_scaling=_rope_scaling(rope, config),
    )


def _n_head_kv(config: Config, tensors: dict[str, Source], n_head: int, n_embd_head: int, notes: list[str]) -> int:
    if config.has("num_key_value_heads"):
        return config.integer("num_key_value_heads")
    key = tensors.get("blk.0.attn_k.weight")
    n_head_kv = n_head if key is None or n_embd_head <= 0 else key.shape[0] // n_embd_head
    notes.append(f"config.json gives no num_key_value_heads: {n_head_kv}, from the rows of k_proj")
    return n_head_kv


def _refuse_sliding_window(config: Config, arch: str, n_ctx: int) -> None:
    """A window that the context never outgrows changes nothing; any other is refused."""
    window = config.values.get("sliding_window")
    if window is None or (arch != "llama" and not config.flag("use_sliding_window", False)):
        return
    window = config.integer("sliding_window")
    if n_ctx > window:
        raise UnsupportedModelError(
            f"{config.path}: the model attends through a sliding window of {window} tokens, "
            "which is not converted; "
            f"--ctx {window} makes a file for contexts inside the window, where the model is the same"
        )


def _rope_values(config: Config) -> Config:
    """rope_theta and the scaling in one place: rope_parameters of newer files, rope_scaling of older ones."""
    values: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        part = config.values.get(key)
        if part is not None and not isinstance(part, dict):
            raise ModelFileError(f"{config.path}: {key} is {shown(part)}, expected an object")
        values.update(part or {})
    if config.has("rope_theta"):
        values.setdefault("rope_theta", config.values["rope_theta"])
    partial = values.get("partial_rotary_factor", config.values.get("partial_rotary_factor"))
    if partial not in (None, 1, 1.0):
        raise UnsupportedModelError(
            f"{config.path}: partial_rotary_factor is {shown(partial)}; whole heads are converted"
        )
    return Config(config.path, values)


def _rope_scaling(rope: Config, config: Config) -> Optional[RopeScaling]:
    kind = rope.values.get("rope_type", rope.values.get("type"))
    if kind in (None, "default"):
        return None
    if kind == "linear":
        return RopeScaling("linear", rope.number("factor", None, *FACTOR_RANGE))
    if kind == "llama3":
        low, high = (rope.number(f"{end}_freq_factor", None, *FACTOR_RANGE) for end in ("low", "high"))
        if not 0 < low < high:
            raise ModelFileError(
                f"{config.path}: llama3 rope: low_freq_factor {low} must be below high_freq_factor {high}"
            )
        return RopeScaling(
            "llama3",
            rope.number("factor", None, *FACTOR_RANGE),
            rope.integer("original_max_position_embeddings"),
            low,
            high,
        )
    if kind == "yarn":
        original = rope if rope.has("original_max_position_embeddings") else config
        key = "original_max_position_embeddings"
        original_ctx = original.integer(key if original.has(key) else "max_position_embeddings")
        return RopeScaling("yarn", rope.number("factor", None, *FACTOR_RANGE), original_ctx, yarn=_yarn_extras(rope))
    raise UnsupportedModelError(
        f"{config.path}: the rope is scaled by {shown(kind)}; linear, yarn and llama3 are converted"
    )


def _yarn_extras(rope: Config) -> tuple[tuple[str, float], ...]:
    for key in ("mscale", "mscale_all_dim"):
        if rope.has(key):
            raise UnsupportedModelError(f"{rope.path}: the yarn rope has {key}, which is not converted")
    if not rope.flag("truncate", True):
        raise UnsupportedModelError(f"{rope.path}: the yarn rope has truncate false, which is not converted")
    if rope.number("extrapolation_factor", 1.0) != 1.0:
        raise UnsupportedModelError(f"{rope.path}: the yarn rope has an extrapolation_factor, which is not converted")
    extras = [
        (f"yarn_{key}", rope.number(key, None, *FACTOR_RANGE)) for key in ("beta_fast", "beta_slow") if rope.has(key)
    ]
    if rope.has("attention_factor"):  # a GGUF's factor comes on top of yarn's own
        factor = max(1.0, rope.number("factor", None, *FACTOR_RANGE))
        extras.append(
            (
                "attn_factor",
                rope.number("attention_factor", None, *ATTENTION_FACTOR_RANGE) / (0.1 * math.log(factor) + 1.0),
            )
        )
    return tuple(extras)


def _resolve_tied(config: Config, tensors: dict[str, Source], notes: list[str]) -> bool:
    """Whether the output matrix is the embedding; then an lm_head is taken out of tensors."""
    said = config.values.get("tie_word_embeddings")
    if "output.weight" not in tensors:
        if said is False:
            raise ModelFileError(f"{config.path}: tie_word_embeddings is false and the weights have no lm_head.weight")
        if said is None:
            notes.append("no lm_head.weight: the output matrix is the embedding")
        return True
    if not config.flag("tie_word_embeddings", False):
        return False
    embedding, head = tensors.get("token_embd.weight"), tensors.pop("output.weight")
    if embedding is not None and not _same_values(embedding, head):
        notes.append("tie_word_embeddings is true: lm_head.weight differs from the embedding and is left out")
    return True


def _same_values(a: Source, b: Source) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype or isinstance(a, Unreadable) or isinstance(b, Unreadable):
        return False
    step = max(1, (1 << 22) // max(1, a.shape[-1]))
    for begin in range(0, a.shape[0], step):
        end = min(begin + step, a.shape[0])
        equal = np.array_equal(a.rows(begin, end), b.rows(begin, end))
        a.release(begin, end)
        b.release(begin, end)
        if not equal:
            return False
    return True


def _pair_rotated_rows(tensors: dict[str, Source], hp: Hparams) -> None:
    """Puts the rows of q and k into the order that the llama architecture rotates; k has its own heads."""
    for name, source in tensors.items():
        n_head = {"attn_q": hp.n_head, "attn_k": hp.n_head_kv}.get(name.split(".")[-2])
        if n_head is not None and isinstance(source, FileTensor) and source.shape[0] == n_head * hp.n_embd_head:
            tensors[name] = HalvesInterleaved(source, n_head)


def read_vocab(folder: Path, arch: str, n_vocab: int, pre: Optional[str], notes: list[str]) -> Vocab:
    """The tokenizer of a Hugging Face folder: tokenizer.json first, as in transformers 5, then tokenizer.model."""
    spm, fast = folder / "tokenizer.model", folder / "tokenizer.json"
    if not fast.is_file() and spm.is_file() and not is_tiktoken(spm):
        return read_spm(spm, folder, n_vocab, notes)
    if not fast.is_file():
        found = f"{spm} is tiktoken text, which has no special tokens" if spm.is_file() else f"no {spm.name} either"
        raise ModelFileError(
            f"{folder}: no tokenizer.json in it, and {found}; "
            "download the tokenizer files of the model into this folder"
        )
    tokenizer = read_json(fast)
    if is_spm_json(tokenizer):
        return read_spm_json(fast, tokenizer, n_vocab, notes)
    vocab = read_bpe(fast, tokenizer, n_vocab, pre, notes)
    said = optional_json(folder / "tokenizer_config.json").get("add_prefix_space") if arch == "llama" else None
    return replace(vocab, add_space_prefix=said) if isinstance(said, bool) else vocab
