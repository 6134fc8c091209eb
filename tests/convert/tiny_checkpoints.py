"""Tiny Llama-family checkpoints for tests: seeded weights and the folders around them.

Owns config.json, params.json, the shards of both forms and small real tokenizers.
"""

from __future__ import annotations

import base64
import functools
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np
from convert.checkpoint_files import write_safetensors, write_torch
from tiny_gguf import CHATML

QWEN2_SPLIT = (
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+"
    "|\\s+(?!\\S)|\\s+"
)
LLAMA3_SPLIT = QWEN2_SPLIT.replace("\\p{N}| ?", "\\p{N}{1,3}| ?")
LLAMA3_ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 64}  # fmt: skip


@dataclass(frozen=True)
class Spec:
    """A tiny model. The defaults are a llama with grouped heads and a SentencePiece tokenizer."""

    arch: str = "llama"
    n_vocab: int = 400
    n_ctx: int = 256
    n_embd: int = 64
    n_layer: int = 2
    n_head: int = 4
    n_head_kv: int = 2
    n_ff: int = 96
    tied: bool = False
    rope_theta: float = 10000.0
    rope_scaling: Optional[Mapping[str, Any]] = None
    rms_eps: float = 1e-5
    seed: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)  # further keys of config.json

    @property
    def n_embd_head(self) -> int:
        return int(self.config.get("head_dim", self.n_embd // self.n_head))


def hf_weights(spec: Spec) -> dict[str, np.ndarray]:
    """Weights by Hugging Face name, float32, (n_out, n_in)."""
    rng = np.random.default_rng(spec.seed)

    def matrix(n_out: int, n_in: int) -> np.ndarray:
        return (rng.standard_normal((n_out, n_in)) / np.sqrt(n_in)).astype(np.float32)

    def norm(n: int = spec.n_embd) -> np.ndarray:
        return (1 + 0.1 * rng.standard_normal(n)).astype(np.float32)

    n_q, n_kv = spec.n_head * spec.n_embd_head, spec.n_head_kv * spec.n_embd_head
    weights = {"model.embed_tokens.weight": rng.standard_normal((spec.n_vocab, spec.n_embd)).astype(np.float32)}
    for il in range(spec.n_layer):
        p = f"model.layers.{il}."
        for part, n_out in (("q", n_q), ("k", n_kv), ("v", n_kv)):
            weights[f"{p}self_attn.{part}_proj.weight"] = matrix(n_out, spec.n_embd)
            if spec.arch == "qwen2" or spec.config.get("attention_bias"):
                weights[f"{p}self_attn.{part}_proj.bias"] = rng.standard_normal(n_out).astype(np.float32)
            if spec.arch == "qwen3" and part != "v":
                weights[f"{p}self_attn.{part}_norm.weight"] = norm(spec.n_embd_head)
        weights[p + "self_attn.o_proj.weight"] = matrix(spec.n_embd, n_q)
        if spec.config.get("attention_bias"):
            weights[p + "self_attn.o_proj.bias"] = rng.standard_normal(spec.n_embd).astype(np.float32)
        weights[p + "mlp.gate_proj.weight"] = matrix(spec.n_ff, spec.n_embd)
        weights[p + "mlp.up_proj.weight"] = matrix(spec.n_ff, spec.n_embd)
        weights[p + "mlp.down_proj.weight"] = matrix(spec.n_embd, spec.n_ff)
        weights[p + "input_layernorm.weight"] = norm()
        weights[p + "post_attention_layernorm.weight"] = norm()
    weights["model.norm.weight"] = norm()
    if not spec.tied:
        weights["lm_head.weight"] = matrix(spec.n_vocab, spec.n_embd)
    return weights


def hf_config(spec: Spec) -> dict[str, Any]:
    """config.json of a spec."""
    name = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}[spec.arch]
    config = {
        "architectures": [name], "model_type": spec.arch, "hidden_act": "silu", "vocab_size": spec.n_vocab,
        "max_position_embeddings": spec.n_ctx, "hidden_size": spec.n_embd, "intermediate_size": spec.n_ff,
        "num_hidden_layers": spec.n_layer, "num_attention_heads": spec.n_head,
        "num_key_value_heads": spec.n_head_kv, "rms_norm_eps": spec.rms_eps, "rope_theta": spec.rope_theta,
        "tie_word_embeddings": spec.tied, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    if spec.rope_scaling is not None:
        config["rope_scaling"] = dict(spec.rope_scaling)
    return {**config, **spec.config}


def write_hf(
    folder: Path,
    spec: Spec,
    *,
    dtype: str = "F32",
    form: str = "safetensors",
    n_shards: int = 1,
    weights: Optional[Mapping[str, Any]] = None,
    tokenizer: str = "spm",
) -> Path:
    """A Hugging Face folder; more than one shard comes with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", hf_config(spec))
    weights = hf_weights(spec) if weights is None else weights
    stem, suffix = ("model", ".safetensors") if form == "safetensors" else ("pytorch_model", ".bin")
    write = write_safetensors if form == "safetensors" else write_torch
    names, weight_map = list(weights), {}
    for i in range(n_shards):
        part = f"{stem}{suffix}" if n_shards == 1 else f"{stem}-{i + 1:05d}-of-{n_shards:05d}{suffix}"
        held = names[i::n_shards]
        write(folder / part, {name: weights[name] for name in held}, dtype)
        weight_map.update(dict.fromkeys(held, part))
    if n_shards > 1:
        write_json(folder / f"{stem}{suffix}.index.json", {"metadata": {}, "weight_map": weight_map})
    if tokenizer == "spm":
        write_spm_tokenizer(folder, spec.n_vocab)
    elif tokenizer:
        write_bpe_tokenizer(folder, spec.n_vocab, tokenizer)
    return folder


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


# ---- Meta ----

_META = {
    "model.embed_tokens": "tok_embeddings",
    "model.norm": "norm",
    "lm_head": "output",
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.layers": "layers",
}


def meta_weights(spec: Spec) -> dict[str, np.ndarray]:
    """The spec's weights with Meta's names and Meta's order of rows in wq and wk."""
    result = {}
    for name, values in hf_weights(spec).items():
        n_head = spec.n_head if "q_proj" in name else spec.n_head_kv if "k_proj" in name else None
        if n_head is not None:  # neighbours rotate together in Meta's order, halves in Hugging Face's
            halves = values.reshape(n_head, 2, values.shape[0] // n_head // 2, -1)
            values = halves.swapaxes(1, 2).reshape(values.shape)
        for old, new in _META.items():
            name = name.replace(old, new)
        result[name] = values
    return result


def write_meta(
    folder: Path,
    spec: Spec,
    *,
    n_shards: int = 1,
    dtype: str = "BF16",
    rows_sharded_embedding: bool = False,
    params: Optional[Mapping[str, Any]] = None,
    tokenizer: str = "spm",
) -> Path:
    """A Meta folder; the embedding is sharded along n_embd (Llama 1 and 2) or by rows (Llama 3)."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = meta_weights(spec)
    for i in range(n_shards):
        shard = {"rope.freqs": np.ones(spec.n_embd_head // 2, np.float32)}
        for name, values in weights.items():
            by_column = name.endswith((".wo.weight", ".w2.weight"))
            if name == "tok_embeddings.weight":
                by_column = not rows_sharded_embedding
            parts = np.split(values, n_shards, axis=int(by_column)) if values.ndim == 2 else [values] * n_shards
            shard[name] = np.ascontiguousarray(parts[i])
        write_torch(folder / f"consolidated.{i:02d}.pth", shard, dtype)
    base = {
        "dim": spec.n_embd,
        "n_layers": spec.n_layer,
        "n_heads": spec.n_head,
        "n_kv_heads": spec.n_head_kv,
        "norm_eps": spec.rms_eps,
        "vocab_size": -1,
        "multiple_of": 256,
    }
    write_json(folder / "params.json", {**base, **(params or {})})
    if tokenizer == "spm":
        (folder / "tokenizer.model").write_bytes(spm_model(spec.n_vocab))
    elif tokenizer == "tiktoken":
        write_tiktoken(folder / "tokenizer.model", spec.n_vocab - 256)
    return folder


# ---- tokenizers ----


def corpus() -> str:
    """English and code that is always there."""
    import argparse
    import inspect

    return inspect.getsource(argparse)


@functools.cache
def spm_model(n_vocab: int) -> bytes:
    """A trained SentencePiece model with Llama's settings."""
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus().splitlines()), model_writer=out, vocab_size=n_vocab, model_type="bpe",
        byte_fallback=True, character_coverage=0.9995, normalization_rule_name="identity",
        remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True,
        num_threads=1, minloglevel=2,
    )  # fmt: skip
    return out.getvalue()


def write_spm_tokenizer(folder: Path, n_vocab: int) -> None:
    (folder / "tokenizer.model").write_bytes(spm_model(n_vocab))
    decoder = {str(i): {"content": text, "special": True} for i, text in enumerate(["<unk>", "<s>", "</s>"])}
    config = {"add_bos_token": True, "add_eos_token": False, "bos_token": "<s>", "eos_token": "</s>",
              "unk_token": "<unk>", "added_tokens_decoder": decoder, "chat_template": CHATML,
              "tokenizer_class": "LlamaTokenizer"}  # fmt: skip
    write_json(folder / "tokenizer_config.json", config)


def byte_letters() -> list[str]:
    """GPT-2's printable letter of each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {byte: chr(byte) for byte in printable}
    letters.update({byte: chr(256 + i) for i, byte in enumerate(b for b in range(256) if b not in letters)})
    return [letters[byte] for byte in range(256)]


PRE_TOKENIZERS: dict[str, Any] = {
    "smollm": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
    "gpt-2": [{"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}],
    "qwen2": [
        {"type": "Split", "pattern": {"Regex": QWEN2_SPLIT}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
    ],
    "llama-bpe": [
        {"type": "Split", "pattern": {"Regex": LLAMA3_SPLIT}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
    ],
}


def bpe_json(texts: list[str], merges: list[str], added: list[dict[str, Any]], pre: str) -> dict[str, Any]:
    """A tokenizer.json; ids follow the order of texts."""
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "NFC"} if pre == "qwen2" else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": PRE_TOKENIZERS[pre]}, "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                  "ignore_merges": pre == "llama-bpe", "vocab": {text: i for i, text in enumerate(texts)},
                  "merges": merges},
    }  # fmt: skip


def added_token(i: int, text: str, special: bool = True) -> dict[str, Any]:
    return {
        "id": i,
        "content": text,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }


@functools.cache
def trained_bpe(n_vocab: int) -> tuple[list[str], list[str]]:
    """Byte-level BPE: the 256 letters, then the results of merges learned on the corpus."""
    letters = byte_letters()
    words: dict[tuple[str, ...], int] = {}
    for word in corpus().replace("\n", " ").split(" ")[:8000]:
        key = ("Ġ", *(letters[b] for b in word.encode()))
        words[key] = words.get(key, 0) + 1
    texts, merges = list(letters), []
    while len(texts) < n_vocab:
        pairs: dict[tuple[str, str], int] = {}
        for letters_of, count in words.items():
            for pair in zip(letters_of, letters_of[1:]):
                pairs[pair] = pairs.get(pair, 0) + count
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(" ".join(best))
        texts.append("".join(best))
        words = {_merged(letters_of, best): count for letters_of, count in words.items()}
    return texts, merges


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    i = 0
    while i < len(word):
        if word[i : i + 2] == pair:
            out.append(word[i] + word[i + 1])
            i += 2
        else:
            out.append(word[i])
            i += 1
    return tuple(out)


def write_bpe_tokenizer(folder: Path, n_vocab: int, pre: str) -> None:
    """ChatML's three special tokens come last; two ids stay free, so that the vocabulary is padded."""
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    texts, merges = trained_bpe(n_vocab - 5)
    added = [added_token(len(texts) + i, text) for i, text in enumerate(specials)]
    write_json(folder / "tokenizer.json", bpe_json(texts, merges, added, pre))
    config = {
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "add_prefix_space": False,
        "chat_template": CHATML,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    write_json(folder / "tokenizer_config.json", config)


def write_tiktoken(path: Path, n_tokens: int) -> None:
    """Ranks of a trained BPE in tiktoken's text form."""
    letters = {letter: byte for byte, letter in enumerate(byte_letters())}
    lines = []
    for rank, text in enumerate(trained_bpe(n_tokens)[0]):
        token = bytes(letters[letter] for letter in text)
        lines.append(base64.b64encode(token) + b" " + str(rank).encode())
    path.write_bytes(b"\n".join(lines) + b"\n")
