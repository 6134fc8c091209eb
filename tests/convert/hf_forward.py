"""The Llama family's forward pass in NumPy, on weights in Hugging Face's form: float64, slow and plain.

Written from the models' definition, apart from the conversion code: rotation of halves, grouped heads, rope
scaling as transformers defines it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from convert.tiny_checkpoints import Spec


def logits(spec: Spec, weights: Mapping[str, np.ndarray], ids: Sequence[int]) -> np.ndarray:
    """Of the last token, (n_vocab,), float64."""
    w = {name: values.astype(np.float64) for name, values in weights.items()}
    x = w["model.embed_tokens.weight"][np.asarray(ids)]  # (n_tokens, n_embd)
    cos, sin = rope_tables(spec, len(ids))
    for il in range(spec.n_layer):
        p = f"model.layers.{il}."
        x = x + attention(spec, w, p + "self_attn.", rms_norm(x, w[p + "input_layernorm.weight"], spec), cos, sin)
        h = rms_norm(x, w[p + "post_attention_layernorm.weight"], spec)
        gate = h @ w[p + "mlp.gate_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w[p + "mlp.up_proj.weight"].T)) @ w[p + "mlp.down_proj.weight"].T
    head = w["model.embed_tokens.weight"] if spec.tied else w["lm_head.weight"]
    return np.asarray(rms_norm(x[-1], w["model.norm.weight"], spec) @ head.T)


def rms_norm(x: np.ndarray, weight: np.ndarray, spec: Spec) -> np.ndarray:
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + spec.rms_eps) * weight


def attention(
    spec: Spec, w: Mapping[str, np.ndarray], p: str, x: np.ndarray, cos: np.ndarray, sin: np.ndarray
) -> np.ndarray:
    n = len(x)

    def project(part: str, n_head: int) -> np.ndarray:  # (n_head, n_tokens, n_embd_head)
        y = x @ w[f"{p}{part}_proj.weight"].T + w.get(f"{p}{part}_proj.bias", 0.0)
        heads = y.reshape(n, n_head, spec.n_embd_head).swapaxes(0, 1)
        weight = w.get(f"{p}{part}_norm.weight")  # qwen3
        return heads if weight is None else rms_norm(heads, weight, spec)

    q = rotate(project("q", spec.n_head), cos, sin)
    k = rotate(project("k", spec.n_head_kv), cos, sin)
    group = spec.n_head // spec.n_head_kv
    k, v = np.repeat(k, group, axis=0), np.repeat(project("v", spec.n_head_kv), group, axis=0)
    scores = q @ k.swapaxes(1, 2) / math.sqrt(spec.n_embd_head)
    scores = np.where(np.tril(np.ones((n, n), bool)), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    out = (weights @ v).swapaxes(0, 1).reshape(n, -1) @ w[p + "o_proj.weight"].T
    return np.asarray(out + w.get(p + "o_proj.bias", 0.0))


def rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    half = x.shape[-1] // 2
    return x * cos + np.concatenate([-x[..., half:], x[..., :half]], axis=-1) * sin


def rope_tables(spec: Spec, n: int) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin, (n_tokens, n_embd_head)."""
    inv_freq = 1.0 / spec.rope_theta ** (np.arange(0, spec.n_embd_head, 2) / spec.n_embd_head)
    scaling = dict(spec.rope_scaling or {})
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    magnitude = 1.0
    if kind == "linear":
        inv_freq = inv_freq / scaling["factor"]
    elif kind == "llama3":
        inv_freq = np.array([_llama3(freq, scaling) for freq in inv_freq])
    elif kind == "yarn":
        inv_freq = _yarn(spec, inv_freq, scaling)
        magnitude = scaling.get("attention_factor") or 0.1 * math.log(scaling["factor"]) + 1.0
    angles = np.outer(np.arange(n), np.concatenate([inv_freq, inv_freq]))
    return np.cos(angles) * magnitude, np.sin(angles) * magnitude


def _llama3(freq: float, scaling: Mapping[str, float]) -> float:
    original, factor = scaling["original_max_position_embeddings"], scaling["factor"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    wavelen = 2 * math.pi / freq
    if wavelen > original / low:
        return freq / factor
    if wavelen < original / high:
        return freq
    smooth = (original / wavelen - low) / (high - low)
    return (1 - smooth) * freq / factor + smooth * freq


def _yarn(spec: Spec, inv_freq: np.ndarray, scaling: Mapping[str, float]) -> np.ndarray:
    dim, original = spec.n_embd_head, scaling["original_max_position_embeddings"]

    def dimension(n_rotations: float) -> float:
        return dim * math.log(original / (n_rotations * 2 * math.pi)) / (2 * math.log(spec.rope_theta))

    low = max(math.floor(dimension(scaling.get("beta_fast", 32))), 0)
    high = min(math.ceil(dimension(scaling.get("beta_slow", 1))), dim - 1)
    ramp = np.clip((np.arange(dim // 2) - low) / max(high - low, 0.001), 0, 1)
    return inv_freq / scaling["factor"] * ramp + inv_freq * (1 - ramp)
