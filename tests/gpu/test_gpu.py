"""Layers on a GPU read, keep and answer as they do on the CPU."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest
from gpu.compare import (
    CONVERSATION,
    NEAR,
    NEAR_QUANTIZED,
    PlacedSession,
    assert_same_step,
    assert_same_steps,
    gpu_config,
    prompt,
    tolerance,
)
from gpu.processes import run_python
from lazygguf.tools.inspect import inspect
from tiny_gguf import Tensor, TinyConfig, write_tiny_gguf

from lazygguf import KeepSchedule, LazyModel, PruningPoint
from lazygguf._ffi import GPU_LAYERS_AUTO, NativeModel, Placement
from lazygguf.errors import Cancelled

pytestmark = pytest.mark.gpu

Write = Callable[[TinyConfig], tuple[Path, dict[str, np.ndarray]]]

# One token comes back per point and decode step: each number of rows up to 8 is a kernel of its own, and a software GPU
# takes minutes to compile one. Later turns bring back as many as they like.
LAZY = KeepSchedule.parse("1:0.5,2:0.25", n_query=1, n_sink=0, min_prompt=0, max_revive=1, revive_margin=0.0)
SCHEDULES = {
    "dense": None,
    "lazy": LAZY,
    "heads and window": KeepSchedule(
        (PruningPoint(0, 0.6, heads=(0, 3), n_query=2), PruningPoint(2, 0.3, n_query=12)),
        n_sink=2,
        min_prompt=0,
        max_revive=1,
    ),
}


class Failed(Exception):  # noqa: N818 (what a callback raises)
    """Raised by a progress callback to end a step."""


def in_f32(keys: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """The same values without their type: the CPU's quantized kernels round what they multiply with to 8 bits, which
    moves logits more than a GPU's sums do."""
    for name, tensor in tensors.items():
        tensors[name] = Tensor.of(tensor.values())


@pytest.mark.parametrize("name", list(SCHEDULES))
@pytest.mark.parametrize("weight_type", ["F32", "F16", "Q4_0", "Q4_K"])
@pytest.mark.parametrize("arch", ["llama", "qwen2"])
def test_a_model_on_the_gpu_answers_as_on_the_cpu(
    gpu: str,
    tiny_model: Write,
    opened: Callable[..., PlacedSession],
    tmp_path: Path,
    arch: str,
    weight_type: str,
    name: str,
) -> None:
    config = gpu_config(weight_type=weight_type, arch=arch, n_layer=4, seed=4)
    path, _ = tiny_model(config)
    schedule = SCHEDULES[name]
    on_gpu = opened(path, schedule, -1, devices=gpu)
    assert on_gpu.notes == "" and f"layers 0-3 and the output on {gpu}" in on_gpu._model.desc
    write_tiny_gguf(tmp_path / "plain.gguf", config, overrides=in_f32)
    near, most = tolerance(gpu, weight_type)
    compared = assert_same_steps(opened(tmp_path / "plain.gguf", schedule), on_gpu, near=near, most=most)
    assert compared.n_same == compared.n_evals if schedule is None else compared.n_same > 0
    assert compared.n_revived > 0 or compared.n_same < compared.n_evals or schedule is None


@pytest.mark.parametrize("by", ["work", "last"])
@pytest.mark.parametrize("n_gpu_layers", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("name", ["dense", "lazy"])
def test_a_model_cut_at_any_layer_answers_as_on_the_cpu(
    gpu: str, tiny_model: Write, opened: Callable[..., PlacedSession], name: str, n_gpu_layers: int, by: str
) -> None:
    path, _ = tiny_model(gpu_config(n_layer=5, rope_freqs=True, seed=3))
    cpu = opened(path, SCHEDULES[name])
    assert_same_steps(cpu, opened(path, SCHEDULES[name], n_gpu_layers, devices=gpu, by=by))


@pytest.mark.parametrize(
    ("n_gpu_layers", "by", "on_gpu"),
    [
        (1, "work", "layer 1"),
        (2, "work", "layers 0-1"),
        (3, "work", "layers 0-2"),
        (5, "work", "layers 0-4"),
        (6, "work", "layers 0-4 and the output"),
        (1, "last", "the output"),
        (3, "last", "layers 3-4 and the output"),
    ],
)
def test_the_layers_that_see_most_tokens_come_first(
    gpu: str, tiny_model: Write, n_gpu_layers: int, by: str, on_gpu: str
) -> None:
    path, _ = tiny_model(gpu_config(n_layer=5, seed=3))
    for schedule, expected in ((LAZY, on_gpu), (None, None if by == "work" else on_gpu)):
        model = NativeModel(path, n_gpu_layers, placement=Placement(devices=gpu, by=by, schedule=schedule))
        if expected is not None:
            assert re.search(rf"[;,] {expected} on {gpu}", model.desc), model.desc
        else:  # without a schedule all layers see the same: as llama.cpp
            assert f"the output on {gpu}" in model.desc
        model.close()


@pytest.mark.parametrize("types", [("q8_0", "q8_0"), ("f32", "f32"), ("f16", "q8_0")])
def test_every_type_of_cache_works_on_the_gpu(
    gpu: str, tiny_model: Write, opened: Callable[..., PlacedSession], types: tuple[str, str]
) -> None:
    path, _ = tiny_model(gpu_config(n_layer=4, seed=3))
    kinds = {"type_k": types[0], "type_v": types[1]}
    near = NEAR_QUANTIZED if "q8_0" in types else NEAR
    for schedule in (None, LAZY):
        on_gpu = opened(path, schedule, -1, devices=gpu, **kinds)
        compared = assert_same_steps(opened(path, schedule, **kinds), on_gpu, CONVERSATION[:4], near)
        assert compared.n_same == compared.n_evals or schedule is LAZY


def test_attention_that_the_gpu_lacks_runs_on_the_cpu_and_is_said(
    gpu: str, tiny_model: Write, opened: Callable[..., PlacedSession]
) -> None:
    path, _ = tiny_model(TinyConfig(n_embd=48, n_layer=4, seed=3))  # heads of 12
    on_gpu = opened(path, LAZY, -1, devices=gpu)
    if not on_gpu.notes:
        pytest.skip(f"{gpu} has a kernel for heads of 12")
    assert f"attention and K/V rows are on the CPU: {gpu} has no kernel for heads of 12" in on_gpu.notes
    assert "attention over heads of 12" in inspect(str(path))["gpus"][gpu]
    assert_same_steps(opened(path, LAZY), on_gpu)


def test_a_step_that_is_stopped_leaves_the_session_as_it_was(
    gpu: str, tiny_model: Write, opened: Callable[..., PlacedSession]
) -> None:
    path, _ = tiny_model(gpu_config(n_layer=4, seed=3))
    cpu, on_gpu = opened(path, LAZY), opened(path, LAZY, -1, devices=gpu)

    def fail(n_done: int, n_total: int) -> None:
        raise Failed

    cpu.eval(prompt(100))
    on_gpu.eval(prompt(100))
    with pytest.raises(Failed):
        on_gpu.eval(prompt(200, seed=1), progress=fail)
    with pytest.raises(Cancelled):  # as Ctrl-C does, between two ubatches where the device cannot be stopped
        on_gpu.eval(prompt(200, seed=1), progress=lambda n_done, n_total: on_gpu.cancel())
    assert on_gpu.n_tokens == 100
    cpu.eval(prompt(30, seed=2))
    on_gpu.eval(prompt(30, seed=2))
    assert assert_same_step(cpu, on_gpu)


def test_only_scores_and_logits_come_back_and_only_ids_and_positions_go_there(
    gpu: str, tiny_model: Write, opened: Callable[..., PlacedSession]
) -> None:
    config = gpu_config(n_layer=4, seed=3)
    path, _ = tiny_model(config)
    schedule = KeepSchedule.parse("1:0.5,2:0.1", n_query=1, n_sink=0, min_prompt=0, max_revive=1)  # each prunes a step
    session = opened(path, schedule, -1, devices=gpu, n_ubatch=64)
    session.eval(prompt(200))
    stats, n_logits = session.stats(), 4 * config.n_vocab
    assert stats.d2h_bytes == n_logits + 4 * sum(256 for _ in schedule.points)  # n_kv is padded to 256
    n_ubatches = [-(-n // 64) for n in stats.n_computed]
    per_row, per_kv_row = 4 + 4 + 4 + 8 + 8 + 4, 4  # id, position twice, K/V row, aux row, asking row
    limit = sum(per_row * n + 256 * per_kv_row * m for n, m in zip(stats.n_computed, n_ubatches))
    assert 0 < stats.h2d_bytes <= limit
    session.eval([5])
    stats = session.stats()
    assert stats.d2h_bytes == n_logits + 4 * sum(256 for _ in schedule.points)
    assert stats.h2d_bytes <= len(stats.n_computed) * 256 * per_kv_row + sum(stats.n_computed) * per_row


@pytest.mark.parametrize("n_gpu_layers", [-1, 2])
def test_a_decode_step_on_one_device_is_one_submission_and_one_wait(
    gpu: str, tiny_model: Write, opened: Callable[..., PlacedSession], n_gpu_layers: int
) -> None:
    path, _ = tiny_model(gpu_config(n_layer=4, seed=3))
    session = opened(path, LAZY, n_gpu_layers, devices=gpu, n_ubatch=64)
    session.eval(prompt(200))
    n_revived = 0
    for token in prompt(6, seed=1):
        session.eval([token])
        stats, n_revived = session.stats(), n_revived + session.stats().n_revived
        n_graphs = 1 if n_gpu_layers == -1 else 3  # the layers of two devices run segment by segment
        assert (stats.n_submissions, stats.n_waits) == (n_graphs, n_graphs)
    assert n_revived > 0


def test_at_a_pruning_point_only_what_goes_on_leaves_the_gpu(
    gpu: str, tiny_model: Write, opened: Callable[..., PlacedSession]
) -> None:
    config = gpu_config(n_layer=4, seed=3)
    path, _ = tiny_model(config)
    session = opened(path, KeepSchedule.paper("1:0.25"), 2, devices=gpu, n_ubatch=512)
    assert f"layers 0-1 on {gpu}, layers 2-3 and the output on CPU" in session._model.desc
    session.eval(prompt(200))
    assert session.stats().d2h_bytes == 4 * config.n_embd * 50 + 4 * 256


def test_as_many_layers_as_fit_are_placed_when_asked(gpu: str, tiny_model: Write) -> None:
    path, _ = tiny_model(gpu_config(n_layer=4, seed=3))
    everything = NativeModel(path, GPU_LAYERS_AUTO, placement=Placement(devices=gpu))
    assert f"layers 0-3 and the output on {gpu}" in everything.desc
    everything.close()
    endless = Placement(devices=gpu, n_ctx=2**31 - 1, n_ubatch=1)
    nothing = NativeModel(path, GPU_LAYERS_AUTO, placement=endless)
    assert f"layers 0-3 on {gpu}" not in nothing.desc and "layers 0-3 and" not in nothing.desc.replace("CPU", "")
    nothing.close()


_TOO_LARGE = """
import sys
from lazygguf._ffi import NativeModel, NativeSession, Placement
model = NativeModel(sys.argv[1], -1, placement=Placement(devices=sys.argv[2]))
session = NativeSession(model, n_ctx=4096, n_ubatch=64)
session.eval([5] * 100)
before = session.logits()
try:
    session.eval([7] * 3900)
except MemoryError as error:
    print(error)
session.trim(99)
session.eval([5])
error = ((session.logits() - before) ** 2).sum() / (before**2).sum()
print(session.n_tokens, error < 1e-3)
"""


def small_buffers(gpu: str, n_bytes: int) -> dict[str, str]:
    """Variables of a process whose GPU gives no larger buffers."""
    if "Vulkan" not in gpu:
        pytest.skip("only Vulkan's memory can be limited for a test")
    return {"GGML_VK_FORCE_MAX_BUFFER_SIZE": str(n_bytes)}


def test_weights_that_the_gpu_has_no_room_for_are_an_error_with_the_bytes_and_the_way_out(
    gpu: str, tiny_model: Write
) -> None:
    path, _ = tiny_model(TinyConfig(n_embd=512, n_layer=4, seed=3))
    options = ["-m", str(path), "-ngl", "all", "--device", gpu, "-p", "a", "-st"]
    done = run_python("-m", "lazygguf", "chat", *options, **small_buffers(gpu, 2_000_000))
    errors = [line for line in done.stderr.splitlines() if line.startswith("lazygguf: error:")]
    assert done.returncode == 1 and len(errors) == 1, done.stderr[-2000:]
    assert re.search(rf"cannot allocate \d+ bytes of {gpu} memory .*; fewer n_gpu_layers need less there", errors[0])


def test_memory_that_the_gpu_lacks_is_an_error_with_the_bytes_and_the_session_goes_on(
    gpu: str, tiny_model: Write
) -> None:
    path, _ = tiny_model(gpu_config(n_layer=4, n_ctx_train=4096, seed=3))
    limits = {**small_buffers(gpu, 200_000), "GGML_VK_FORCE_MAX_ALLOCATION_SIZE": "200000"}  # the weights in pieces
    done = run_python("-c", _TOO_LARGE, str(path), gpu, **limits)
    said = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.fullmatch(rf"cannot allocate \d+ bytes .*{gpu}.*; a smaller n_.*", said[0]), said
    assert said[1] == "100 True"


def test_lazy_model_takes_the_options_and_counts_the_traffic(gpu: str, tiny_model: Write, capfd: Any) -> None:
    path, _ = tiny_model(gpu_config(n_layer=4, seed=3))
    options: dict[str, Any] = {"n_ctx": 256, "keep": "off", "n_threads": 1, "weights": "as-is"}
    texts = []
    placements: list[dict[str, Any]] = [{}, {"n_gpu_layers": "all", "device": gpu, "verbose": True}]
    for placed in placements:
        with LazyModel(path, **options, **placed) as model:
            answer = model.create_completion(prompt(60), max_tokens=5, temperature=0)
            texts.append(answer["choices"][0]["text"])
            moved = model.stats.traffic_bytes
            assert set(moved) == {"prefill_h2d", "prefill_d2h", "decode_h2d", "decode_d2h"}
            assert all((n > 0) == bool(placed) for n in moved.values())
    assert texts[0] == texts[1]
    assert f"layers 0-3 and the output on {gpu}" in capfd.readouterr().err


@pytest.mark.model
@pytest.mark.parametrize("spelling", [None, "17:0.3,21:0.1"])
def test_smollm2_on_the_gpu_answers_as_on_the_cpu(
    gpu: str, smollm2_path: Path, opened: Callable[..., PlacedSession], spelling: Optional[str]
) -> None:
    schedule = None if spelling is None else KeepSchedule.parse(spelling, min_prompt=0, n_query=4, max_revive=1)
    cpu, on_gpu = opened(smollm2_path, schedule), opened(smollm2_path, schedule, -1, devices=gpu)
    text = prompt(200, n_vocab=40000)
    for ids in (text, [338], [253]):
        cpu.eval(ids)
        on_gpu.eval(ids)
        if not assert_same_step(cpu, on_gpu, *tolerance(gpu, "Q4_1")):
            return
