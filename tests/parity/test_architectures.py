"""Architectures beyond Llama and Qwen: what each adds, held to llama-cpp-python and to the reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from parity.compare import EXACT, assert_same_step, llama_logits, logits_of, new_session, prompt, schedule_of
from reference import Reference, nmse
from tiny_gguf import TinyConfig

from lazygguf import KeepSchedule, LazyModel, PruningPoint

Write = Callable[[TinyConfig], tuple[Path, dict[str, np.ndarray]]]

WINDOW = {"window": 40, "window_every": 2}  # of six layers, 1, 3 and 5 see all
CHANGES: dict[str, dict[str, Any]] = {
    "gemma3": {"arch": "gemma3", "head_dim": 32, "tied": True},
    "gemma3, windows": {"arch": "gemma3", "head_dim": 32, **WINDOW},
    "gemma3, its own pattern": {"arch": "gemma3", "n_layer": 7, "window": 30, "rope_freq_base": 1e6},
    "gemma3, bases and scaling": {
        "arch": "gemma3", **WINDOW, "rope_freq_base": 1e6, "window_freq_base": 500.0, "rope_scaling": "linear",
        "logit_softcap": 3.0,
    },
    "gemma3, 62 layers": {"arch": "gemma3", "n_layer": 62, "head_dim": 32, "n_ff": 32},
    "granite": {
        "arch": "granite", "embd_scale": 3.0, "residual_scale": 0.4, "attn_scale": 0.1, "logit_scale": 8.0,
        "tokenizer": "bpe",
    },
    "granite, plain": {"arch": "granite", "qkv_bias": True, "tied": True, "rope_freqs": True},
    "olmo2": {"arch": "olmo2", "n_head_kv": 4},
    "olmo2, windows": {"arch": "olmo2", **WINDOW, "rope_scaling": "yarn", "rope_freq_base": 5e5},
    "olmo2, its own pattern": {"arch": "olmo2", "n_layer": 5, "window": 30},
    "smollm3": {"arch": "smollm3", "n_layer": 8, "tied": True, "rope_freq_base": 5e6},
    "smollm3, yarn": {"arch": "smollm3", "qkv_bias": True, "rope_scaling": "yarn"},
}  # fmt: skip
# Pruned after layers that see all in each of them.
PRUNED = {
    "paper": KeepSchedule.paper("1:0.5,3:0.25"),
    "question": schedule_of(
        PruningPoint(1, 0.4, n_query="question", pool=5), PruningPoint(3, 0.2, n_query=4), max_revive=2, n_sink=4
    ),
    "heads": schedule_of(PruningPoint(1, 0.5, heads=(0, 3)), PruningPoint(3, 0.2, mass=0.7, keep_min=0.1)),
    "decode cached": schedule_of(
        PruningPoint(1, 0.4, n_query=3), PruningPoint(3, 0.2), max_revive=2, decode_cached=True
    ),
}
# NMSE of logits where all else is equal. ggml's GELU is a table of F16 values: a last bit before it may be the next
# value after it.
TOLERANCE = {"gemma3": 1e-6}
ALIKE = ("gemma3", "gemma3, windows", "granite", "olmo2", "olmo2, windows", "smollm3")


def llama_steps(path: Path, steps: list[list[int]], n_ctx: int, **options: Any) -> list[np.ndarray]:
    """llama.cpp's logits after each step."""
    model = llama_cpp.Llama(str(path), n_ctx=n_ctx, n_threads=2, n_threads_batch=2, verbose=False, **options)
    try:
        return [llama_logits(model, step) for step in steps]
    finally:
        model.close()


@pytest.mark.parametrize("name", list(CHANGES))
def test_the_reference_in_float32_is_llama_cpp(tiny_model: Write, name: str) -> None:
    config = TinyConfig(**CHANGES[name])
    path, weights = tiny_model(config)
    ids = prompt(96)
    (expected,) = llama_steps(path, [ids], 256, type_k=0, type_v=0)
    error = nmse(Reference(weights, config).eval(ids), expected)
    print(f"{name}: {error:.1e}")
    assert error <= TOLERANCE.get(config.arch, 1e-10)


@pytest.mark.parametrize("weight_type", ["F32", "Q8_0", "Q4_K"])
@pytest.mark.parametrize("name", ["gemma3, windows", "granite", "olmo2, windows", "smollm3"])
def test_dense_logits_are_llama_cpps(tiny_model: Write, name: str, weight_type: str) -> None:
    """A prompt of two ubatches, longer than the window, then single tokens."""
    config = TinyConfig.for_type(weight_type, **{**CHANGES[name], "head_dim": 0, "n_ctx_train": 1024})
    path, _ = tiny_model(config)
    ids = prompt(604)
    steps = [ids[:600], *([token] for token in ids[600:])]
    expected = llama_steps(path, steps, 1024, n_ubatch=512, flash_attn=True)
    session = new_session(path, n_ctx=1024, type_k="f16", type_v="f16", n_ubatch=512)
    for step, logits in zip(steps, expected):
        session.eval(step)
        error = nmse(logits_of(session), logits)
        print(f"{name} {weight_type}: {error:.1e}")
        assert error <= (1e-6 if weight_type == "F32" else 1e-4)


@pytest.mark.parametrize("kernels", ["as-is", "fast"])
@pytest.mark.parametrize("name", [name for name in CHANGES if name != "gemma3, 62 layers"])
def test_a_dense_session_answers_as_the_reference_does(tiny_model: Write, name: str, kernels: str) -> None:
    config = TinyConfig(**CHANGES[name])
    path, weights = tiny_model(config)
    session, reference = new_session(path, n_ubatch=32, weights=kernels), Reference(weights, config)
    tolerance = TOLERANCE.get(config.arch, EXACT)
    for ids in (prompt(60, seed=1), prompt(1, seed=2), prompt(20, seed=3)):
        assert_same_step(session, reference, ids, tolerance)


@pytest.mark.parametrize("schedule", list(PRUNED))
@pytest.mark.parametrize("name", ALIKE)
def test_a_pruned_session_answers_as_the_reference_does(tiny_model: Write, name: str, schedule: str) -> None:
    config = TinyConfig(**CHANGES[name])
    path, weights = tiny_model(config)
    session = new_session(path, PRUNED[schedule], n_ubatch=64, weights="fast")
    reference = Reference(weights, config, PRUNED[schedule])
    tolerance = TOLERANCE.get(config.arch, EXACT)
    assert_same_step(session, reference, prompt(100, seed=5), tolerance, query_span=(70, 82))
    for token in prompt(6, seed=6):
        assert_same_step(session, reference, [token], tolerance)
    assert_same_step(session, reference, prompt(40, seed=17), tolerance)
    session.trim(90)
    reference.trim(90)
    assert_same_step(session, reference, prompt(30, seed=9), tolerance)


@pytest.mark.parametrize("name", ALIKE)
def test_what_waits_before_layer_0_is_read_as_in_the_reference(tiny_model: Write, name: str) -> None:
    """An unread token's row is its scaled embedding."""
    config = TinyConfig(**CHANGES[name])
    path, weights = tiny_model(config)
    schedule = schedule_of(PruningPoint(-1, 0.3), PruningPoint(3, 0.1))
    session, reference = new_session(path, schedule, n_ubatch=32), Reference(weights, config, schedule)
    tolerance = TOLERANCE.get(config.arch, EXACT)
    scores = [np.random.default_rng(seed).random(n).astype(np.float32) for seed, n in ((1, 80), (2, 100))]
    assert_same_step(session, reference, prompt(80, seed=5), tolerance, query_span=(60, 72), scores=scores[0])
    assert_same_step(session, reference, prompt(20, seed=7), tolerance, scores=scores[1])


# ---- windows and pruning points ----


def test_a_pruning_point_after_a_layer_with_a_window_is_refused(tiny_model: Write) -> None:
    path, _ = tiny_model(TinyConfig(**CHANGES["gemma3, windows"]))
    said = r"layer 2 sees 40 tokens at a time, so it cannot score the others; prune after a layer that sees all: 1, 3$"
    with pytest.raises(ValueError, match=said):
        new_session(path, schedule_of(PruningPoint(2, 0.5)), n_ctx=256)
    new_session(path, schedule_of(PruningPoint(2, 0.5)), n_ctx=40)  # the window is the whole context
    new_session(path, schedule_of(PruningPoint(2, 0.5, heads=((1, 0),))), n_ctx=256)  # a layer before it scores


def test_the_careful_default_prunes_after_layers_that_see_all(tiny_model: Write) -> None:
    config = TinyConfig(arch="gemma3", n_layer=13, window=40)
    path, _ = tiny_model(config)
    with LazyModel(path) as model:
        assert model.schedule is not None
        assert [point.il for point in model.schedule.points] == [11]
        model.eval(prompt(300), query_span=(280, 295))
        assert model.stats.token_share < 1.0


def test_without_a_later_layer_that_sees_all_the_default_is_dense() -> None:
    assert KeepSchedule.auto(10, windowed=range(5, 10)) is None
    assert KeepSchedule.auto(10, windowed=()) == KeepSchedule.auto(10)


# ---- a trained model ----


@pytest.mark.model
def test_gemma3_answers_as_llama_cpp_does(gemma3_path: Path) -> None:
    """1,000 tokens, twice its window, then 64 greedy ones: the same, with the same kernels; with ours, close logits."""
    text = (Path(__file__).parent.parent.parent / "docs" / "lighthouse.txt").read_bytes()
    llama = llama_cpp.Llama(
        str(gemma3_path), n_ctx=2048, n_threads=2, n_threads_batch=2, flash_attn=True, verbose=False
    )
    with LazyModel(gemma3_path, n_ctx=2048, keep="off", weights="as-is") as model:
        ids = llama.tokenize(text)[:1000]
        assert model.tokenize(text)[:1000] == ids
        answers = []
        for one in (llama, model):
            tokens = one.generate(ids, temp=0.0, repeat_penalty=1.0)
            answers.append([next(tokens) for _ in range(64)])
        assert answers[0] == answers[1]
        model.reset()
        model.eval(ids)
        with LazyModel(gemma3_path, n_ctx=2048, keep="off") as fast:
            fast.eval(ids)
            assert nmse(np.asarray(fast.logits), np.asarray(model.logits)) <= 5e-3
    llama.close()
