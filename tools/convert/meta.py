"""A Meta folder becomes a plan: consolidated.NN.pth, params.json and tokenizer.model of Llama 1, 2 and 3.

Owns what params.json means, how shards of one tensor join, and what Meta's files leave open. Meta's rows
already have the order that GGUF wants: nothing is permuted here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Optional

from lazygguf.errors import ModelFileError, UnsupportedModelError

from .checkpoint import Concatenated, Source
from .json_file import EPS_RANGE, FACTOR_RANGE, THETA_RANGE, Config, read_json
from .plan import Hparams, ModelPlan, RopeScaling, Vocab, ordered_tensors
from .tensors.pickle_tensors import open_torch
from .vocab.spm import load_processor, read_spm
from .vocab.tiktoken import is_tiktoken, read_tiktoken

_TOP = {
    "tok_embeddings.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "output.weight": "output.weight",
}
_BLOCK = {
    "attention_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
    "attention.wq": "attn_q",
    "attention.wk": "attn_k",
    "attention.wv": "attn_v",
    "attention.wo": "attn_output",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w3": "ffn_up",
    "feed_forward.w2": "ffn_down",
}
_COLUMN_SHARDED = ("attn_output", "ffn_down")  # split along the input; every other matrix along its rows
_FOREIGN = (
    "moe",
    "quantization_args",
    "lora_args",
    "vision_chunk_size",
    "num_experts",
    "nope_layer_interval",
)
_LLAMA31_CTX, _LLAMA31_ORIGINAL = 131072, 8192
_SMALL_LLAMA32 = (2048, 3072)  # dim of the 1B and 3B, whose rope is stretched by 32 instead of 8


def shard_names(folder: Path) -> list[str]:
    """consolidated.NN.pth files of a folder, in order."""
    return sorted(path.name for path in folder.iterdir() if re.fullmatch(r"consolidated\.\d+\.pth", path.name))


def plan_meta(folder: Path, n_ctx: Optional[int], rope_scale: Optional[float], vocab_only: bool) -> ModelPlan:
    """The plan for a Meta folder.

    Args:
        folder: Holds the shards and params.json; tokenizer.model lies in it or in its parent.
        n_ctx: The context length; None: from what the files tell of the model's generation.
        rope_scale: The factor of Llama 3.1's rope scaling; None: as the files say.
        vocab_only: Plan the tokenizer and no tensors.
    """
    if not (folder / "params.json").is_file():
        raise ModelFileError(f"{folder}: consolidated.*.pth without params.json; it belongs to the same download")
    params = Config(folder / "params.json", read_json(folder / "params.json"))
    for key in _FOREIGN:
        if params.has(key):
            raise UnsupportedModelError(f"{params.path}: {key} is set; plain Llama 1, 2 and 3 are converted")
    notes: list[str] = []
    tokenizer = _find_tokenizer(folder)
    tensors = {} if vocab_only else _read_shards(folder, params)
    hp = _hparams(params, tensors, tokenizer, n_ctx, rope_scale, notes)
    hp.check(params.path)
    tied = "output.weight" not in tensors
    if tied and not vocab_only:
        notes.append("no output.weight: the output matrix is the embedding")
    ordered = [] if vocab_only else ordered_tensors(hp, tensors, tied, folder)
    vocab = _read_vocab(tokenizer, hp, params, notes)
    notes.append("Meta's files hold no chat template; give one when chatting (--chat-template)")
    return ModelPlan(folder, hp, vocab, ordered, notes)


def _find_tokenizer(folder: Path) -> Path:
    places = [folder / "tokenizer.model", folder.resolve().parent / "tokenizer.model"]
    for path in places:
        if path.is_file():
            return path
    raise ModelFileError(f"no tokenizer at {places[0]} nor at {places[1]}; copy tokenizer.model of the download there")


def _read_vocab(path: Path, hp: Hparams, params: Config, notes: list[str]) -> Vocab:
    if is_tiktoken(path):
        return read_tiktoken(path, hp.n_vocab, params.flag("use_scaled_rope", False))
    return read_spm(path, path.parent, hp.n_vocab, notes)


def _read_shards(folder: Path, params: Config) -> dict[str, Source]:
    """Every tensor by GGUF name, joined over the shards."""
    names = shard_names(folder)
    wanted = [f"consolidated.{i:02d}.pth" for i in range(len(names))]
    if names != wanted:
        missing = sorted(set(wanted) - set(names))
        raise ModelFileError(f"{folder}: the shards are {', '.join(names)}; {', '.join(missing) or 'one'} is missing")
    shards = [open_torch(folder / name) for name in names]
    for name, shard in zip(names, shards):
        if shard.keys() != shards[0].keys():
            odd = sorted(shard.keys() ^ shards[0].keys())[0]
            raise ModelFileError(f"{folder}: {names[0]} and {name} do not hold the same tensors: {odd!r}")
    dim, n_heads = params.integer("dim"), params.integer("n_heads")
    joined: dict[str, Source] = {}
    for name in shards[0]:
        if name == "rope.freqs":  # computed from rope_theta
            continue
        joined[_gguf_name(folder, name)] = _join(folder, name, [shard[name] for shard in shards], dim)
    _check_rows(folder, joined, dim, n_heads, len(names))
    return joined


def _gguf_name(folder: Path, name: str) -> str:
    match = re.fullmatch(r"layers\.(\d{1,6})\.(.+)\.weight", name)
    if match and match[2] in _BLOCK:
        return f"blk.{int(match[1])}.{_BLOCK[match[2]]}.weight"
    if name not in _TOP:
        raise UnsupportedModelError(f"{folder}: the tensor {name!r} has no place in a llama model")
    return _TOP[name]


def _join(folder: Path, name: str, parts: list[Source], dim: int) -> Source:
    """One tensor of its shards. The embedding is split along dim (Llama 1, 2) or by rows (Llama 3)."""
    first = parts[0]
    if len(parts) == 1 or len(first.shape) == 1:
        return first  # 1-D weights are in every shard whole
    by_column = _gguf_name(folder, name).split(".")[-2] in _COLUMN_SHARDED
    if name == "tok_embeddings.weight":
        by_column = first.shape[1] != dim
    axis = 1 if by_column else 0
    for part in parts:
        if part.dtype != first.dtype or len(part.shape) != 2 or part.shape[1 - axis] != first.shape[1 - axis]:
            raise ModelFileError(
                f"{folder}: the shards of {name!r} do not fit: {first.dtype} {list(first.shape)} and "
                f"{part.dtype} {list(part.shape)}"
            )
    return Concatenated(parts, axis)


def _check_rows(folder: Path, tensors: dict[str, Source], dim: int, n_heads: int, n_shards: int) -> None:
    """Says how many shards there should be when the joined matrices are too small."""
    query = tensors.get("blk.0.attn_q.weight")
    if query is None or len(query.shape) != 2 or query.shape[0] == dim:
        return
    per_shard = query.shape[0] // n_shards
    if per_shard and dim % per_shard == 0 and dim // per_shard > n_shards:
        raise ModelFileError(
            f"{folder}: the model has {dim // per_shard} shards, {n_shards} are here; "
            f"consolidated.{n_shards:02d}.pth is missing"
        )


def _hparams(
    params: Config,
    tensors: dict[str, Source],
    tokenizer: Path,
    n_ctx: Optional[int],
    rope_scale: Optional[float],
    notes: list[str],
) -> Hparams:
    dim, n_heads = params.integer("dim"), params.integer("n_heads")
    if n_heads <= 0 or dim % n_heads:
        raise ModelFileError(f"{params.path}: dim {dim} does not divide into n_heads {n_heads}")
    embedding, gate = tensors.get("token_embd.weight"), tensors.get("blk.0.ffn_gate.weight")
    n_vocab = params.integer("vocab_size", -1)
    rows = embedding.shape[0] if embedding is not None else _tokenizer_size(tokenizer)
    if n_vocab > 0 and embedding is not None and n_vocab != rows:
        raise ModelFileError(f"{params.path}: vocab_size is {n_vocab}, the embedding has {rows} rows; they must agree")
    return Hparams(
        arch="llama",
        n_vocab=n_vocab if n_vocab > 0 else rows,  # Llama 2 says -1: the tokenizer's
        n_ctx=n_ctx if n_ctx is not None else _context_length(params, tokenizer, notes),
        n_embd=dim,
        n_ff=gate.shape[0] if gate is not None else 1,  # multiple_of and ffn_dim_multiplier do not tell it exactly
        n_layer=params.integer("n_layers"),
        n_head=n_heads,
        n_head_kv=params.integer("n_kv_heads", n_heads),
        n_embd_head=dim // n_heads,
        rms_eps=params.number("norm_eps", None, *EPS_RANGE),
        rope_theta=params.number("rope_theta", 10000.0, *THETA_RANGE),
        rope_scaling=_rope_scaling(params, dim, rope_scale, notes),
    )


def _tokenizer_size(tokenizer: Path) -> int:
    if is_tiktoken(tokenizer):
        return len(tokenizer.read_bytes().split()) // 2 + 256
    return int(load_processor(tokenizer).vocab_size())


def _context_length(params: Config, tokenizer: Path, notes: list[str]) -> int:
    """Meta's files do not say it: each generation has its own, told by its other traits; always noted."""
    if params.flag("use_scaled_rope", False):
        n_ctx, why = _LLAMA31_CTX, "use_scaled_rope, Llama 3.1 or later"
    elif is_tiktoken(tokenizer):
        n_ctx, why = 8192, "a tiktoken tokenizer, Llama 3"
    elif params.number("rope_theta", 10000.0) == 1e6:
        n_ctx, why = 16384, "rope_theta 1e6, Code Llama"
    elif params.number("norm_eps") == 1e-5:
        n_ctx, why = 4096, "norm_eps 1e-5, Llama 2"
    else:
        n_ctx, why = 2048, "Llama 1"
    notes.append(f"params.json does not tell the context length: {n_ctx} ({why}); --ctx N sets another")
    return n_ctx


def _rope_scaling(params: Config, dim: int, rope_scale: Optional[float], notes: list[str]) -> Optional[RopeScaling]:
    if not params.flag("use_scaled_rope", False):
        return None
    factor = rope_scale
    if factor is None and params.has("rope_scaling_factor"):
        factor = params.number("rope_scaling_factor", None, *FACTOR_RANGE)
    if factor is None:
        factor = 32.0 if dim in _SMALL_LLAMA32 else 8.0
        model = "Llama 3.2 1B and 3B" if dim in _SMALL_LLAMA32 else "Llama 3.1"
        notes.append(f"params.json does not tell the rope factor: {factor:g} ({model}); --rope-scale N sets another")
    return RopeScaling("llama3", factor, _LLAMA31_ORIGINAL, 1.0, 4.0)
