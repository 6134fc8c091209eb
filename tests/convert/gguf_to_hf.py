"""A GGUF model back into a Hugging Face folder: the inverse of the conversion, for round trips.

Owns the inverse of every rule: names, the order of q and k rows, the tokenizer's JSON files. Weights are
dequantised to F32 safetensors, one tensor at a time.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
from convert.tiny_checkpoints import added_token, bpe_json, write_json
from gguf import GGUFReader, quants

_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5


def fields(reader: GGUFReader) -> dict[str, Any]:
    """Every key-value pair."""
    return {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}


def values(tensor: Any) -> np.ndarray:
    """The dequantised contents, float32, (n_out, n_in)."""
    return np.asarray(quants.dequantize(tensor.data, tensor.tensor_type), np.float32).reshape(tensor.shape[::-1])


def write_hf_folder(path: Path, folder: Path) -> None:
    """Writes config.json, model.safetensors and the tokenizer of a GGUF model."""
    folder.mkdir(parents=True, exist_ok=True)
    reader = GGUFReader(path)
    kv = fields(reader)
    _write_config(kv, {t.name for t in reader.tensors}, folder)
    _write_weights(kv, reader, folder / "model.safetensors")
    _write_tokenizer(kv, folder)


def _write_config(kv: dict[str, Any], names: set[str], folder: Path) -> None:
    arch = kv["general.architecture"]
    config = {
        "architectures": [
            {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}[arch]
        ],
        "model_type": arch,
        "hidden_act": "silu",
        "vocab_size": len(kv["tokenizer.ggml.tokens"]),
        "max_position_embeddings": kv[f"{arch}.context_length"],
        "hidden_size": kv[f"{arch}.embedding_length"],
        "intermediate_size": kv[f"{arch}.feed_forward_length"],
        "num_hidden_layers": kv[f"{arch}.block_count"],
        "num_attention_heads": kv[f"{arch}.attention.head_count"],
        "num_key_value_heads": kv[f"{arch}.attention.head_count_kv"],
        "rms_norm_eps": kv[f"{arch}.attention.layer_norm_rms_epsilon"],
        "rope_theta": kv[f"{arch}.rope.freq_base"],
        "tie_word_embeddings": "output.weight" not in names,
        "bos_token_id": kv["tokenizer.ggml.bos_token_id"],
        "eos_token_id": kv["tokenizer.ggml.eos_token_id"],
    }
    write_json(folder / "config.json", config)


def _hf_name(name: str) -> str:
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{_NAMES[parts[2]]}.{parts[3]}"
    return f"{_NAMES[parts[0]]}.{parts[1]}"


def _write_weights(kv: dict[str, Any], reader: GGUFReader, path: Path) -> None:
    header, offset = {}, 0
    for tensor in reader.tensors:
        size = 4 * int(tensor.n_elements)
        shape = [int(n) for n in tensor.shape[::-1]]
        header[_hf_name(tensor.name)] = {
            "dtype": "F32",
            "shape": shape,
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in reader.tensors:
            file.write(_halved_rows(kv, tensor.name, values(tensor)).tobytes())


def _halved_rows(kv: dict[str, Any], name: str, array: np.ndarray) -> np.ndarray:
    """Hugging Face's order of the rotated rows: of each head the first of all pairs, then the second."""
    if kv["general.architecture"] != "llama" or not re.search(r"\.attn_[qk]\.", name):
        return array
    n_head = kv["llama.attention.head_count" + ("_kv" if ".attn_k." in name else "")]
    pairs = array.reshape(n_head, array.shape[0] // n_head // 2, 2, *array.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(array.shape))


def _write_tokenizer(kv: dict[str, Any], folder: Path) -> None:
    tokens, types = kv["tokenizer.ggml.tokens"], kv["tokenizer.ggml.token_type"]
    added = [
        added_token(i, text, special=kind == _CONTROL)
        for i, (text, kind) in enumerate(zip(tokens, types))
        if kind in (_CONTROL, _USER_DEFINED)
    ]
    pre = {"smollm": "smollm", "qwen2": "qwen2"}[kv["tokenizer.ggml.pre"]]
    tokenizer = bpe_json([], kv["tokenizer.ggml.merges"], added, pre)
    # as Hugging Face keeps them: Qwen's added tokens are outside of the vocabulary, SmolLM2's inside
    inside = pre == "smollm"
    tokenizer["model"]["vocab"] = {
        text: i
        for i, (text, kind) in enumerate(zip(tokens, types))
        if kind != _UNUSED and (inside or kind not in (_CONTROL, _USER_DEFINED))
    }
    write_json(folder / "tokenizer.json", tokenizer)
    config = {"chat_template": kv["tokenizer.chat_template"]}
    names = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    for key, name in names.items():
        i = kv.get(f"tokenizer.ggml.{key}_token_id")
        if i is not None:
            config[f"{name}_token"] = tokens[i]
    for key in ("add_bos_token", "add_space_prefix"):
        if f"tokenizer.ggml.{key}" in kv:
            config[{"add_space_prefix": "add_prefix_space"}.get(key, key)] = kv[f"tokenizer.ggml.{key}"]
    write_json(folder / "tokenizer_config.json", config)
