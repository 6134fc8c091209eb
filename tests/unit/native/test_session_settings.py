"""What ``lazy_session_new`` refuses, the types of K and V, and the memory a session holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lazygguf._native import ffi, lib
from reference import nmse
from tiny_gguf import TinyConfig

from lazygguf import KeepSchedule, PruningPoint
from lazygguf._ffi import NativeModel, NativeSession, check

Write = Callable[[TinyConfig], tuple[Path, Any]]
CONFIG = TinyConfig(seed=3)  # 6 layers, 4 heads of 16
WIDE = TinyConfig(seed=3, n_embd=128)  # 4 heads of 32


def prompt(n: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(3, CONFIG.n_vocab, n)]


def logits_of(session: NativeSession) -> np.ndarray:
    logits = session.logits()
    assert logits is not None
    return logits


@pytest.fixture(scope="module")
def model(tiny_model: Write) -> NativeModel:
    return NativeModel(tiny_model(CONFIG)[0])


def new_session(model: NativeModel, schedule: KeepSchedule | None = None, **changes: Any) -> NativeSession:
    return NativeSession(model, schedule=schedule, **{"n_ctx": 256, "n_ubatch": 16, "n_threads": 1, **changes})


# ---- keep schedules and settings


def native_point(**changes: Any) -> dict[str, Any]:
    plain = {"heads": None, "n_heads": 0, "head_layers": None, "n_query": 1, "pool": 1}
    return {"il": 1, "keep": 0.5, **plain, "n_layers": 1, "mass": 1.0, "keep_min": 0.0, **changes}


def open_session(model: NativeModel, points: list[dict[str, Any]], params: Any = None, **schedule: Any) -> None:
    """A session through the C interface alone, where nothing in Python checks."""
    array, keep_alive = ffi.new("lazy_point[]", max(len(points), 1)), []
    for out, point in zip(array, points):
        heads = ffi.NULL if point["heads"] is None else ffi.new("int32_t[]", point["heads"])
        keep_alive.append(heads)
        n_heads = point["n_heads"] if point["heads"] is None else len(point["heads"])
        out.il, out.keep, out.n_query, out.pool = (point[name] for name in ("il", "keep", "n_query", "pool"))
        out.heads, out.n_heads = heads, n_heads
        layers = ffi.NULL if point["head_layers"] is None else ffi.new("int32_t[]", point["head_layers"])
        keep_alive.append(layers)
        out.head_layers = layers
        out.n_layers, out.mass, out.keep_min = (point[name] for name in ("n_layers", "mass", "keep_min"))
    settings = {"version": 1, "n_points": len(points), "n_sink": 0, "min_prompt": 0, "max_revive": -1, **schedule}
    native = ffi.new("lazy_schedule *", {"points": array, **settings})
    out, session_params = ffi.new("lazy_session **"), ffi.new("lazy_session_params *")
    lib.lazy_session_params_init(session_params)
    for name, value in (params or {}).items():
        setattr(session_params, name, value)
    check(lib.lazy_session_new(out, model._model, session_params, native))
    lib.lazy_session_free(out[0])


BAD_POINTS = [
    ([native_point(il=-2)], "il is -2, expected a layer in [0, 4] for a model of 6 layers, or -1"),
    ([native_point(il=5)], "il is 5, expected a layer in [0, 4]"),
    ([native_point(il=2**31 - 1)], "il is 2147483647"),
    ([native_point(il=2**31 - 1, n_layers=2**31 - 1)], "il is 2147483647"),
    ([native_point(il=2**31 - 1), native_point()], "il is 2147483647"),
    ([native_point(keep=0.0)], "keep is 0, expected a value in (0, 1]"),
    ([native_point(keep=-0.5)], "keep is -0.5"),
    ([native_point(keep=1.4)], "keep is 1.4"),
    ([native_point(keep=float("nan"))], "keep is"),
    ([native_point(n_query=-1)], "n_query is -1, expected a value in [0, 128]"),
    ([native_point(n_query=129)], "n_query is 129"),
    ([native_point(pool=0)], "pool is 0, expected an odd number"),
    ([native_point(pool=4)], "pool is 4"),
    ([native_point(pool=-3)], "pool is -3"),
    ([native_point(heads=[0, 4])], "head is 4, expected a value in [0, 3]"),
    ([native_point(heads=[-1])], "head is -1"),
    ([native_point(heads=[0], head_layers=[4])], "a head of layer 4 scores after layer 1, expected a layer in [0, 1]"),
    ([native_point(heads=[0], head_layers=[-1])], "a head of layer -1 scores after layer 1"),
    (
        [native_point(), native_point(il=3, heads=[0], head_layers=[1])],
        "a head of layer 1 scores after layer 3, expected a layer in [2, 3]",
    ),
    ([native_point(n_layers=0)], "n_layers is 0 after layer 1, expected a value in [1, 2]"),
    ([native_point(n_layers=3)], "n_layers is 3 after layer 1"),
    ([native_point(), native_point(il=3, n_layers=3)], "n_layers is 3 after layer 3, expected a value in [1, 2]"),
    ([native_point(mass=0.0)], "mass is 0, expected a value in (0, 1]"),
    ([native_point(mass=1.5)], "mass is 1.5"),
    ([native_point(mass=float("nan"))], "mass is"),
    ([native_point(keep=0.4, keep_min=0.5)], "keep_min is 0.5, expected a value in [0, 0.4]"),
    ([native_point(keep_min=-0.1)], "keep_min is -0.1"),
    ([native_point(n_heads=2)], "heads and n_heads disagree"),
    ([native_point(n_heads=-2)], "heads and n_heads disagree"),
    ([native_point(il=3), native_point(il=1)], "il is 1 after 3, expected ascending layers"),
    ([native_point(il=3), native_point(il=3)], "il is 3 after 3"),
    ([native_point(keep=0.3), native_point(il=3, keep=0.4)], "keep is 0.4 after 0.3, expected it never to rise"),
    ([native_point(il=i) for i in range(64)], "64 pruning points, expected at most 63"),
]


@pytest.mark.parametrize(("points", "message"), BAD_POINTS, ids=[message for _, message in BAD_POINTS])
def test_the_c_interface_checks_pruning_points_itself(
    model: NativeModel, points: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(ValueError) as caught:
        open_session(model, points)
    assert str(caught.value).startswith("keep schedule: ") and message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"version": 0}, "version is 0, expected 1"),
        ({"n_points": -1}, "-1 pruning points"),
        ({"n_sink": -1}, "n_sink is -1"),
        ({"min_prompt": -1}, "min_prompt is -1"),
        ({"max_revive": -2}, "max_revive is -2"),
        ({"mean_revive": -1.0, "max_revive": 4}, "mean_revive is -1 with max_revive 4"),
        ({"mean_revive": 2.0}, "mean_revive is 2 with max_revive -1"),
        ({"mean_revive": float("nan"), "max_revive": 4}, "mean_revive is nan with max_revive 4"),
    ],
)
def test_the_c_interface_checks_schedules_itself(model: NativeModel, settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        open_session(model, [native_point()], **settings)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"version": 2}, "lazy_session_params.version is 2, expected 1"),
        ({"n_ctx": -1}, "n_ctx is -1, expected at least 0"),
        ({"n_layer": -1}, "n_layer is -1, expected at least 0"),
        ({"n_layer": 7}, "n_layer is 7, expected at most the model's 6"),
        ({"n_ubatch": 0}, "n_ubatch is 0, expected at least 1"),
        ({"n_threads": 0}, "n_threads is 0"),
        ({"n_threads_batch": -1}, "n_threads_batch is -1"),
        ({"type_k": 2}, "type_k is 2, expected f16, f32 or q8_0"),
        ({"type_v": 9}, "type_v is 9"),
        ({"type_k": 8}, "type_k is q8_0, which needs heads of a multiple of 32, and this model's are 16; use f16"),
        ({"type_v": 8}, "type_v is q8_0, which needs heads of a multiple of 32, and this model's are 16; use f16"),
    ],
)
def test_the_c_interface_checks_settings_itself(model: NativeModel, params: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        open_session(model, [], params)
    assert message in str(caught.value)


# ---- K/V types and memory

# NMSE to f16. Measured: 4e-6 for f32, 1.4e-4 for one in q8_0 and 2.3e-4 for both.
KV_NMSE = {("f32", "f32"): 1e-4, ("q8_0", "f16"): 1e-3, ("f16", "q8_0"): 1e-3, ("q8_0", "q8_0"): 1e-3}


@pytest.mark.parametrize("types", list(KV_NMSE), ids=str)
@pytest.mark.parametrize(
    "keep_all", [None, KeepSchedule((PruningPoint(1, 1.0),), min_prompt=0)], ids=["dense", "keep 1"]
)
def test_other_types_of_k_and_v_give_nearly_the_logits_of_f16(
    tiny_model: Write, keep_all: KeepSchedule | None, types: tuple[str, str]
) -> None:
    model = NativeModel(tiny_model(WIDE)[0])
    expected, session = new_session(model, keep_all), new_session(model, keep_all, type_k=types[0], type_v=types[1])
    for ids in (prompt(100), [5], prompt(30, seed=1)):
        expected.eval(ids)
        session.eval(ids)
        assert nmse(logits_of(session), logits_of(expected)) <= KV_NMSE[types]


def test_quantized_k_and_v_take_about_half_the_memory_of_f16(tiny_model: Write) -> None:
    model = NativeModel(tiny_model(WIDE)[0])
    sizes = {}
    for kind in ("f32", "f16", "q8_0"):
        session = new_session(model, type_k=kind, type_v=kind)
        session.eval(prompt(100))
        sizes[kind] = session.stats().kv_bytes
    assert sizes["f32"] == 2 * sizes["f16"]
    assert sizes["q8_0"] * 32 == sizes["f16"] * 17


def test_memory_grows_with_the_rows_and_reset_gives_it_back(model: NativeModel) -> None:
    dense, lazy = new_session(model, n_ctx=2048), new_session(model, KeepSchedule.paper("1:0.5,3:0.2"), n_ctx=2048)
    for session in (dense, lazy):
        assert session.stats().kv_bytes == session.stats().aux_bytes == 0
    sizes = []
    for _ in range(3):
        dense.eval(prompt(500))
        lazy.eval(prompt(500))
        sizes.append((dense.stats().kv_bytes, lazy.stats().kv_bytes))
        n_rows = sum(len(lazy.cached(s)) * n for s, n in enumerate(lazy.stats().n_layers))
        assert n_rows < 0.7 * lazy.n_tokens * CONFIG.n_layer
    assert sizes[0][0] < sizes[1][0] < sizes[2][0]
    assert all(of_lazy < of_dense for of_dense, of_lazy in sizes)
    assert sizes[2][1] < 0.8 * sizes[2][0]
    assert lazy.stats().aux_bytes > 0 == dense.stats().aux_bytes
    for session in (dense, lazy):
        session.reset()
        assert session.stats().kv_bytes == session.stats().aux_bytes == 0
        assert session.logits() is None and session.n_tokens == 0


_ENUMS = {
    "weights": "lazy_weights",
    "placement": "lazy_placement",
    "type_k": "lazy_kv_dtype",
    "type_v": "lazy_kv_dtype",
}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("weights", -1, "expected a value of lazy_weights"),
        ("weights", 4, "expected a value of lazy_weights"),
        ("placement", 2, "expected a value of lazy_placement"),
        ("type_k", 2, "expected f16, f32 or q8_0"),
        ("type_v", 7, "expected f16, f32 or q8_0"),
        ("n_gpu_layers", -3, "expected at least -2"),
        ("n_ctx", -1, "expected at least 0"),
        ("n_ubatch", 0, "expected at least 1"),
        ("version", 2, "expected 1"),
    ],
)
def test_a_value_of_the_c_interface_that_does_not_exist_is_refused(
    tiny_model: Callable[[TinyConfig], tuple[Path, Any]], name: str, value: int, expected: str
) -> None:
    params = ffi.new("lazy_model_params *")
    lib.lazy_model_params_init(params)
    setattr(params, name, ffi.cast(_ENUMS.get(name, "int32_t"), value))
    out, path = ffi.new("lazy_model **"), str(tiny_model(TinyConfig())[0]).encode()
    with pytest.raises(ValueError, match=f"{name} is {value}, {expected}"):
        check(lib.lazy_model_load(out, path, params))


def test_a_session_outlives_the_handle_of_its_model(tiny_model: Callable[[TinyConfig], tuple[Path, Any]]) -> None:
    path, _ = tiny_model(TinyConfig())
    expected = NativeSession(NativeModel(path))
    expected.eval([1, 2, 3])
    model = NativeModel(path)
    session = NativeSession(model)
    ffi.release(model._model)  # as the garbage collector may, where both go at once
    session.eval([1, 2, 3])
    np.testing.assert_array_equal(session.logits(), expected.logits())
    ffi.release(session._session)
    session._session = model._model = None
