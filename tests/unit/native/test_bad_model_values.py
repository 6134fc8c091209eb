"""Well-formed GGUF files that are no model lazygguf can run: wrong keys, numbers, tensors, weights, vocabularies.

Every file is opened in a worker process (``load_probe``), as in ``test_bad_model_files``. What llama.cpp does not
refuse by an error is not written here; its refusal is tested with plain values in ``tests/native/model_numbers.cpp``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType
from load_probe import STAGES, LoadWorker, assert_accepted, assert_refused
from tiny_gguf import Kv, Tensor, TinyConfig, tiny_kv, tiny_weights, write_changed

SMALL: dict[str, Any] = {"n_layer": 3, "n_embd": 32, "n_head": 2, "n_head_kv": 1, "n_ff": 32, "n_vocab": 270}
LLAMA, QWEN2, BPE = TinyConfig(**SMALL), TinyConfig(arch="qwen2", **SMALL), TinyConfig(tokenizer="bpe", **SMALL)
KvChanges = Mapping[str, Optional[Kv]]
Changes = Mapping[str, Optional[Tensor]]


def u32(value: int) -> Kv:
    return Kv(value, GGUFValueType.UINT32)


def f32(value: float) -> Kv:
    return Kv(value, GGUFValueType.FLOAT32)


def text(value: str) -> Kv:
    return Kv(value, GGUFValueType.STRING)


def array(values: list[Any], element: GGUFValueType = GGUFValueType.STRING) -> Kv:
    return Kv(values, GGUFValueType.ARRAY, element)


# ---- 8: the wrong type of value

COUNTS = ("context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count")
OPTIONAL_COUNTS = (
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "rope.dimension_count",
    "rope.scaling.original_context_length",
    "expert_count",
    "attention.sliding_window",
)
FLOATS = (
    "attention.layer_norm_rms_epsilon",
    "rope.freq_base",
    "rope.scaling.factor",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
)
YARN_FLOATS = ("rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow")
WRONG_NUMBERS = {"text": text("4"), "bool": Kv(True, GGUFValueType.BOOL), "list": array([4], GGUFValueType.UINT32)}
IDS = tuple(f"tokenizer.ggml.{name}_token_id" for name in ("bos", "eos", "eot", "unknown", "padding"))
BOOLS = tuple(f"tokenizer.ggml.{name}" for name in ("add_bos_token", "add_eos_token", "add_space_prefix"))


def wrong_types() -> Iterator[tuple[str, Kv]]:
    for key in (*COUNTS, *OPTIONAL_COUNTS, "split.count"):
        full = key if "split" in key else f"llama.{key}"
        yield from ((full, kv) for name, kv in WRONG_NUMBERS.items() if name != "list" or "head_count" not in key)
        yield full, f32(4.0)
    for key in (*FLOATS, *YARN_FLOATS):
        yield from ((f"llama.{key}", kv) for kv in (*WRONG_NUMBERS.values(), u32(4)))
    yield "llama.attention.head_count", array(["2"])
    for key in ("general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.pre", "llama.rope.scaling.type"):
        yield from ((key, kv) for kv in (u32(1), array(["llama"])))
    for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type"):
        yield from ((key, kv) for kv in (u32(1), text("a"), array([1.0] * 270, GGUFValueType.FLOAT64)))
    yield "tokenizer.ggml.tokens", array(list(range(270)), GGUFValueType.INT32)
    yield "tokenizer.ggml.scores", array(["1"] * 270)
    yield "tokenizer.ggml.token_type", array([1] * 270, GGUFValueType.UINT32)
    for key in IDS:
        yield from ((key, kv) for kv in (*WRONG_NUMBERS.values(), f32(1.0), Kv(1, GGUFValueType.INT32)))
    for key in BOOLS:
        yield from ((key, kv) for kv in (u32(1), text("true"), array([True], GGUFValueType.BOOL)))


@pytest.mark.parametrize(("key", "kv"), list(wrong_types()), ids=lambda value: value if isinstance(value, str) else "")
def test_a_key_of_the_wrong_type_is_refused_by_name(worker: LoadWorker, path: Path, key: str, kv: Kv) -> None:
    is_yarn = key.split(".", 1)[1] in YARN_FLOATS
    write_changed(path, LLAMA, {**({"llama.rope.scaling.type": text("yarn")} if is_yarn else {}), key: kv})
    assert_refused(worker.ask(path), "check", "ModelFileError", str(path), f"key '{key}' is of type", "expected")


@pytest.mark.parametrize("kv", [u32(1), text("a"), array([1, 2], GGUFValueType.INT32)], ids=["u32", "str", "list"])
def test_merges_of_the_wrong_type_are_refused(worker: LoadWorker, path: Path, kv: Kv) -> None:
    write_changed(path, BPE, {"tokenizer.ggml.merges": kv})
    assert_refused(worker.ask(path), "check", "ModelFileError", "key 'tokenizer.ggml.merges' is of type", "expected")


@pytest.mark.parametrize("kind", ["UINT8", "INT8", "UINT16", "INT16", "INT32", "UINT64", "INT64"])
def test_every_kind_of_whole_number_is_read(worker: LoadWorker, path: Path, kind: str) -> None:
    kv = {key: value for key, value in tiny_kv(LLAMA).items() if key.removeprefix("llama.") in COUNTS}
    small = {key: Kv(min(value.value, 127), GGUFValueType[kind]) for key, value in kv.items()}
    write_changed(path, LLAMA, {**small, "llama.attention.head_count_kv": array([1, 1, 1], GGUFValueType[kind])})
    assert_accepted(worker.ask(path, [*STAGES, "eval"]))


def test_doubles_are_read_where_floats_are_wanted(worker: LoadWorker, path: Path) -> None:
    write_changed(path, LLAMA, {"llama.attention.layer_norm_rms_epsilon": Kv(1e-5, GGUFValueType.FLOAT64)})
    assert_accepted(worker.ask(path, [*STAGES, "eval"]))


@pytest.mark.parametrize("key", ["general.name", "tokenizer.chat_template", "lazygguf.profile"])
def test_a_wrong_type_where_no_weights_depend_on_it_ends_no_process(worker: LoadWorker, path: Path, key: str) -> None:
    write_changed(path, LLAMA, {key: u32(3)})
    answer = worker.ask(path)
    assert answer["native"] is None
    assert answer["lazy"] is None or answer["lazy"][0] == "ModelFileError"


# ---- 9: another kind of model


@pytest.mark.parametrize("arch", ["gpt2", "mamba", "qwen35", "llama4", "LLAMA", "", "clip", "x" * 10_000])
def test_another_architecture_is_refused_with_the_supported_ones(worker: LoadWorker, path: Path, arch: str) -> None:
    write_changed(path, LLAMA, {"general.architecture": text(arch)})
    said = (f"architecture '{arch}'", "supported are 'llama'", "'qwen2'")
    assert_refused(worker.ask(path), "check", "UnsupportedModelError", str(path), *said)


OTHER_KINDS: dict[str, tuple[str, KvChanges]] = {
    "sliding-window attention (4096 tokens)": ("supported are", {"llama.attention.sliding_window": u32(4096)}),
    "split into 3 files": ("merge them into one file first", {"split.count": Kv(3, GGUFValueType.UINT16)}),
    "key_length 16 differs from value_length 8": (
        "supported are",
        {"llama.attention.key_length": u32(16), "llama.attention.value_length": u32(8)},
    ),
    "rope scaling 'longrope'": ("supported are", {"llama.rope.scaling.type": text("longrope")}),
    "key 'llama.attention.head_count' differs between layers": (
        "supported are",
        {"llama.attention.head_count": array([2, 1, 2], GGUFValueType.UINT32)},
    ),
}


@pytest.mark.parametrize("what", OTHER_KINDS)
def test_another_kind_of_model_is_refused(worker: LoadWorker, path: Path, what: str) -> None:
    way_out, kv = OTHER_KINDS[what]
    write_changed(path, LLAMA, kv)
    assert_refused(worker.ask(path), "check", "UnsupportedModelError", str(path), what, way_out)


@pytest.mark.parametrize("key", ["llama.expert_count", "llama.attention.sliding_window", "split.count"])
def test_a_zero_says_that_it_is_not_another_kind(worker: LoadWorker, path: Path, key: str) -> None:
    write_changed(path, LLAMA, {key: Kv(0, GGUFValueType.UINT16 if "split" in key else GGUFValueType.UINT32)})
    assert_accepted(worker.ask(path))


def zeros(shape: tuple[int, int], ggml_type: GGMLQuantizationType) -> Tensor:
    n_block, n_bytes = GGML_QUANT_SIZES[ggml_type]
    return Tensor(np.zeros(shape[0] * shape[1] // n_block * n_bytes, np.uint8), ggml_type, shape)


NO_KERNELS = ("Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64")
COMPUTED = [ggml_type for ggml_type in GGMLQuantizationType if ggml_type.name not in NO_KERNELS]


@pytest.mark.parametrize("ggml_type", COMPUTED, ids=lambda ggml_type: ggml_type.name)
def test_weights_of_every_type_with_kernels_are_computed_with(
    worker: LoadWorker, path: Path, ggml_type: GGMLQuantizationType
) -> None:
    config = TinyConfig(n_layer=2, n_embd=256, n_head=4, n_head_kv=2, n_ff=256, n_vocab=270)
    shapes = {name: values.shape for name, values in tiny_weights(config).items() if values.ndim == 2}
    write_changed(path, config, tensors={name: zeros(shape, ggml_type) for name, shape in shapes.items()})
    assert_accepted(worker.ask(path, [*STAGES, "eval", "eval without mmap"]))


# ---- 10: numbers that cannot be

NUMBERS: list[tuple[str, Kv, str]] = [
    ("context_length", u32(0), "context_length is 0"),
    ("context_length", u32(2**31), "'llama.context_length' is 2147483648"),
    ("embedding_length", u32(0), "embedding_length is 0"),
    ("embedding_length", u32(2**21), "embedding_length is 2.09715e+06"),
    ("embedding_length", Kv(2**64 - 1, GGUFValueType.UINT64), "'llama.embedding_length' is -1"),
    ("embedding_length", u32(33), "embedding_length is 33, expected a multiple of attention.head_count 2"),
    ("block_count", Kv(-1, GGUFValueType.INT32), "'llama.block_count' is -1"),
    ("feed_forward_length", u32(0), "feed_forward_length is 0"),
    ("feed_forward_length", u32(2**25), "feed_forward_length is 3.35544e+07"),
    ("attention.head_count", u32(0), "attention.head_count is 0"),
    ("attention.head_count", u32(5000), "attention.head_count is 5000"),
    ("attention.head_count", Kv(-2, GGUFValueType.INT32), "'llama.attention.head_count' is -2"),
    ("attention.head_count", array([], GGUFValueType.UINT32), "llama.attention.head_count is"),
    ("attention.head_count", array([-1] * 3, GGUFValueType.INT32), "llama.attention.head_count is"),
    ("attention.head_count_kv", u32(0), "attention.head_count_kv is 0"),
    ("attention.head_count_kv", u32(3), "attention.head_count_kv is 3, expected a value in [1, 2]"),
    (
        "attention.head_count_kv",
        array([2**40] * 3, GGUFValueType.UINT64),
        "llama.attention.head_count_kv is 1.09951e+12",
    ),
    ("attention.key_length", u32(5000), "attention.key_length is 5000"),
    ("rope.dimension_count", u32(0), "rope.dimension_count is 0"),
    ("rope.dimension_count", u32(7), "rope.dimension_count is 7, expected an even number"),
    ("rope.dimension_count", u32(18), "rope.dimension_count is 18, expected a value in [2, 16]"),
    ("attention.layer_norm_rms_epsilon", f32(0), "attention.layer_norm_rms_epsilon is 0"),
    ("attention.layer_norm_rms_epsilon", f32(2.0), "attention.layer_norm_rms_epsilon is 2"),
    *((key, f32(math.inf), f"'llama.{key}' is not finite") for key in FLOATS),
    *(
        (key, f32(value), f"'llama.{key}' is not finite")
        for key in FLOATS
        for value in (math.nan, -math.inf)
        if "epsilon" not in key
    ),
    ("rope.freq_base", f32(0), "rope.freq_base is 0"),
    ("rope.freq_base", f32(-1), "rope.freq_base is -1"),
    ("rope.freq_base", Kv(1e300, GGUFValueType.FLOAT64), "rope.freq_base is"),
    ("rope.scaling.factor", f32(-4), "rope.scaling.factor is -4"),
    ("rope.scaling.factor", f32(1e9), "rope.scaling.factor is 1e+09"),
    ("rope.scaling.attn_factor", f32(0), "rope.scaling.attn_factor is 0"),
    ("rope.scaling.original_context_length", u32(0), "rope.scaling.original_context_length is 0"),
]


@pytest.mark.parametrize(("key", "kv", "said"), NUMBERS, ids=[said for _, _, said in NUMBERS])
def test_a_number_that_cannot_be_is_refused_by_name_and_value(
    worker: LoadWorker, path: Path, key: str, kv: Kv, said: str
) -> None:
    write_changed(path, LLAMA, {f"llama.{key}": kv})
    answer = worker.ask(path)
    assert_refused(answer, "check", "ModelFileError", str(path), said)
    assert answer["rss_mb"] < 50


@pytest.mark.parametrize("key", YARN_FLOATS)
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, 1e9])
def test_a_yarn_setting_that_cannot_be_is_refused(worker: LoadWorker, path: Path, key: str, value: float) -> None:
    write_changed(path, LLAMA, {"llama.rope.scaling.type": text("yarn"), f"llama.{key}": f32(value)})
    assert_refused(worker.ask(path), "check", "ModelFileError", str(path), key)


@pytest.mark.parametrize("key", [*COUNTS, "attention.layer_norm_rms_epsilon"])
def test_a_missing_number_is_refused_by_name(worker: LoadWorker, path: Path, key: str) -> None:
    write_changed(path, LLAMA, {f"llama.{key}": None})
    assert_refused(worker.ask(path), "check", "ModelFileError", str(path), f"key 'llama.{key}' is missing")
