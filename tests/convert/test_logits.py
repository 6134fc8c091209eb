"""The converted file computes what the checkpoint computes: logits against NumPy, in both runtimes.

The NumPy pass (hf_forward) reads the original Hugging Face weights and shares no code with the conversion.
The bound is an NMSE of 1e-8 for F32 weights and F32 KV caches. Where transformers is installed, NumPy is held
to it as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from convert.hf_forward import logits as numpy_logits
from convert.tiny_checkpoints import LLAMA3_ROPE, Spec, hf_weights, write_hf

LIMIT = 1e-8
IDS = [1, *range(20, 140)]  # longer than the original context of the llama3 scaling

SPECS = {
    "llama, grouped heads": Spec(),
    "llama, tied": Spec(tied=True, seed=1),
    "llama, llama3 rope": Spec(rope_scaling=LLAMA3_ROPE, rope_theta=5e5, seed=2),
    "llama, linear rope": Spec(rope_scaling={"type": "linear", "factor": 4.0}, seed=3),
    "llama, yarn rope": Spec(
        rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}, seed=4
    ),
    "llama, yarn rope with its own magnitude": Spec(
        rope_scaling={
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 64,
            "attention_factor": 1.3,
        },
        seed=5,
    ),
    "llama, one head each": Spec(n_head_kv=4, seed=6),
    "llama, heads wider than n_embd": Spec(config={"head_dim": 32}, seed=7),
    "llama, attention biases": Spec(config={"attention_bias": True}, seed=11),
    "mistral": Spec(config={"architectures": ["MistralForCausalLM"], "sliding_window": None}, seed=8),
    "qwen2": Spec(arch="qwen2", config={"use_sliding_window": False, "sliding_window": 32}, seed=9),
    "qwen3": Spec(arch="qwen3", config={"head_dim": 32, "use_sliding_window": False, "sliding_window": 32}, seed=12),
    "qwen3, tied": Spec(arch="qwen3", config={"head_dim": 16}, tied=True, rms_eps=1e-6, rope_theta=1e6, seed=13),
    "qwen2, tied": Spec(arch="qwen2", tied=True, rms_eps=1e-6, seed=10),
}


def nmse(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sum((found - expected) ** 2) / np.sum(expected**2))


@pytest.fixture(params=list(SPECS))
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Spec, Path]:
    spec = SPECS[request.param]
    return spec, write_hf(tmp_path / "hf", spec, tokenizer="spm" if spec.arch == "llama" else "qwen2")


def test_both_runtimes_compute_the_logits_of_the_checkpoint(
    checkpoint: tuple[Spec, Path], tmp_path: Path, convert: Callable[..., int]
) -> None:
    spec, folder = checkpoint
    out = tmp_path / "out.gguf"
    assert convert(folder, "--outfile", out, "--outtype", "f32") == 0
    expected = numpy_logits(spec, hf_weights(spec), IDS)
    assert nmse(llama_cpp_logits(out), expected) <= LIMIT
    assert nmse(lazygguf_logits(out), expected) <= LIMIT


def test_numpy_computes_the_logits_of_transformers(checkpoint: tuple[Spec, Path]) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra test-hf is not installed")
    torch = pytest.importorskip("torch", reason="the extra test-hf is not installed")
    spec, folder = checkpoint
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        found = model(torch.tensor([IDS])).logits[0, -1].double().numpy()
    assert nmse(found, numpy_logits(spec, hf_weights(spec), IDS)) <= LIMIT


def llama_cpp_logits(path: Path) -> np.ndarray:
    llama_cpp = pytest.importorskip("llama_cpp")
    model = llama_cpp.Llama(str(path), n_ctx=256, verbose=False, type_k=0, type_v=0, logits_all=True)
    model.eval(IDS)
    return np.array(model.scores[len(IDS) - 1], np.float64)


def lazygguf_logits(path: Path) -> np.ndarray:
    from lazygguf import LazyModel

    model = LazyModel(path, n_ctx=256, keep="off", type_k="f32", type_v="f32")
    model.eval(IDS)
    return np.array(model.logits, np.float64)
