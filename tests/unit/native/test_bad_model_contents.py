"""Model files whose tensors, weights or vocabulary do not fit the model they say they are.

Every file is opened in a worker process (``load_probe``), as in ``test_bad_model_files``. No file here may end a
program that opens it with llama.cpp: what llama.cpp does not check is refused by functions of plain values, and tested
there (``tests/native/vocabulary.cpp``, ``tests/native/model_numbers.cpp``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFValueType
from load_probe import STAGES, LoadWorker, assert_accepted, assert_refused
from tiny_gguf import Kv, Tensor, TinyConfig, tiny_kv, tiny_weights, write_changed

SMALL: dict[str, Any] = {"n_layer": 3, "n_embd": 32, "n_head": 2, "n_head_kv": 1, "n_ff": 32, "n_vocab": 270}
LLAMA, QWEN2, BPE = TinyConfig(**SMALL), TinyConfig(arch="qwen2", **SMALL), TinyConfig(tokenizer="bpe", **SMALL)
WEIGHTS = {config.arch: tiny_weights(config) for config in (LLAMA, QWEN2)}


def text(value: str) -> Kv:
    return Kv(value, GGUFValueType.STRING)


def array(values: list[Any], element: GGUFValueType = GGUFValueType.STRING) -> Kv:
    return Kv(values, GGUFValueType.ARRAY, element)


# ---- 11: tensors

NAMES = [(config, name) for config in (LLAMA, QWEN2) for name in WEIGHTS[config.arch]]


@pytest.mark.parametrize(("config", "name"), NAMES, ids=[f"{config.arch} {name}" for config, name in NAMES])
def test_a_tensor_that_is_missing_or_misshapen_is_refused_by_name(
    worker: LoadWorker, path: Path, config: TinyConfig, name: str
) -> None:
    values = WEIGHTS[config.arch][name]
    shape = (
        ", ".join(str(n) for n in (*values.shape[::-1], 1, 1)[:4]) if values.ndim == 2 else f"{values.size}, 1, 1, 1"
    )
    write_changed(path, config, tensors={name: None})
    if name == "output.weight":
        assert_accepted(worker.ask(path, [*STAGES, "eval"]))  # tied to token_embd.weight
    else:
        expected = f"tensor '{name}' is missing"
        assert_refused(worker.ask(path), "check", "ModelFileError", str(path), expected)

    turned = values.T if values.ndim == 2 and values.shape[0] != values.shape[1] else values.reshape(1, -1)
    wrong = [np.concatenate([values, values]), turned[..., None]]
    for other in wrong:
        write_changed(path, config, tensors={name: Tensor.of(other)})
        found = ", ".join(str(n) for n in (*other.shape[::-1], 1, 1, 1)[:4])
        if name == "token_embd.weight" and other.ndim == 2:  # its rows are the vocabulary
            assert_refused(worker.ask(path), "check", "ModelFileError", str(path))
            continue
        said = f"tensor '{name}' has shape [{found}], expected [{shape}]"
        assert_refused(worker.ask(path), "check", "ModelFileError", str(path), said)


@pytest.mark.parametrize("name", ["blk.0.attn_q.bias", "blk.1.attn_output.bias", "rope_freqs.weight"])
def test_an_optional_tensor_is_checked_too(worker: LoadWorker, path: Path, name: str) -> None:
    write_changed(path, LLAMA, tensors={name: Tensor.of(np.ones(7))})
    assert_refused(worker.ask(path), "check", "ModelFileError", str(path), f"tensor '{name}' has shape [7, 1, 1, 1]")
    n = 8 if "rope" in name else 32
    write_changed(path, LLAMA, tensors={name: Tensor.of(np.ones(n))})
    assert_accepted(worker.ask(path, [*STAGES, "eval"]))


UNREAD = {
    "llama": [
        "blk.0.ffn_down.bias", "blk.1.ffn_up.bias", "blk.0.ffn_gate.bias", "blk.0.attn_output.scale", "x",
        "blk.0.attn_q_norm.weight", "blk.0.attn_rot_embd.weight", "blk.99.attn_q.weight", "output.bias",
    ],
    "qwen2": ["blk.0.attn_q_norm.weight", "rope_freqs.weight", "output.bias", "blk.0.ffn_up.scale"],
    "qwen3": ["blk.0.attn_output.bias", "rope_freqs.weight", "blk.0.ffn_up.input_scale"],
}  # fmt: skip


@pytest.mark.parametrize(("arch", "name"), [(arch, name) for arch, names in UNREAD.items() for name in names])
def test_a_tensor_that_the_architecture_does_not_read_refuses_the_file(
    arch: str, name: str, worker: LoadWorker, path: Path
) -> None:
    """Without it the logits would be others, and nothing would say so."""
    write_changed(path, TinyConfig(arch=arch, **SMALL), tensors={name: Tensor.of(np.ones(32))})
    said = f"tensor '{name}' is not read by the '{arch}' architecture"
    assert_refused(worker.ask(path), "check", "ModelFileError", str(path), said)


def test_of_many_unread_tensors_the_first_is_named(worker: LoadWorker, path: Path) -> None:
    extra = {f"blk.{il}.ffn_up.bias": Tensor.of(np.ones(32)) for il in range(3)}
    write_changed(path, LLAMA, tensors=extra)
    said = "tensor 'blk.0.ffn_up.bias' and 2 more is not read"
    assert_refused(worker.ask(path), "check", "ModelFileError", said)


def test_attention_that_is_not_causal_is_refused(worker: LoadWorker, path: Path) -> None:
    write_changed(path, LLAMA, {"llama.attention.causal": Kv(False, GGUFValueType.BOOL)})
    assert_refused(worker.ask(path), "check", "UnsupportedModelError", str(path), "attention.causal is false")
    write_changed(path, LLAMA, {"llama.attention.causal": Kv(True, GGUFValueType.BOOL)})
    assert_accepted(worker.ask(path, [*STAGES, "eval"]))


def test_fewer_layers_than_the_file_says_names_the_first_tensor_that_is_missing(worker: LoadWorker, path: Path) -> None:
    write_changed(path, LLAMA, {"llama.block_count": Kv(4, GGUFValueType.UINT32)})
    said = "tensor 'blk.3.attn_norm.weight' is missing, expected shape [32, 1]"
    assert_refused(worker.ask(path), "check", "ModelFileError", said)


# ---- 12: weights that are no numbers


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "name", ["token_embd.weight", "blk.0.attn_k.weight", "blk.2.attn_v.weight", "blk.1.ffn_up.weight", "output.weight"]
)
def test_weights_that_are_not_finite_are_an_error_of_eval(
    worker: LoadWorker, path: Path, name: str, bad: float
) -> None:
    for where in (..., 5):
        values = WEIGHTS["llama"][name].copy()
        values[where] = bad
        write_changed(path, LLAMA, tensors={name: Tensor.of(values)})
        answer = worker.ask(path, ["native", "eval", "eval without mmap", "lazy"])
        assert answer["native"] is None
        for stage in ("eval", "eval without mmap"):
            assert answer[stage] is not None, f"{stage} takes a {name} of {bad}"
            assert answer[stage][0] == "LazyError" and "not finite" in answer[stage][1]


# ---- 13: the vocabulary

TOKENS = tiny_kv(LLAMA)["tokenizer.ggml.tokens"].value


def tokens_with(changes: dict[int, Any]) -> Kv:
    return array([changes.get(i, token) for i, token in enumerate(TOKENS)])


def types_with(changes: dict[int, int]) -> Kv:
    types = tiny_kv(LLAMA)["tokenizer.ggml.token_type"].value
    return array([changes.get(i, kind) for i, kind in enumerate(types)], GGUFValueType.INT32)


T = "tokenizer.ggml."
VOCABULARIES: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({T + "model": None}, "key 'tokenizer.ggml.model' is missing"),
    "no tokens": ({T + "tokens": None}, "key 'tokenizer.ggml.tokens' is missing"),
    "a token too few": ({T + "tokens": array(TOKENS[:-1])}, "has 269 tokens, but token_embd.weight has 270 rows"),
    "a token too many": ({T + "tokens": array([*TOKENS, "x"])}, "has 271 tokens, but token_embd.weight has 270 rows"),
    "a byte of another name": ({T + "token_type": types_with({269: 6})}, "is of type byte, expected a text like"),
    "scores too short": ({T + "scores": array([0.0] * 269, GGUFValueType.FLOAT32)}, "scores' has 269 elements"),
    "scores too long": ({T + "scores": array([0.0] * 271, GGUFValueType.FLOAT32)}, "scores' has 271 elements"),
    "no score": ({T + "scores": array([], GGUFValueType.FLOAT32)}, "scores' has 0 elements, expected one for each"),
    "types too short": ({T + "token_type": array([1] * 269, GGUFValueType.INT32)}, "token_type' has 269 elements"),
}


@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_vocabulary_that_cannot_be_is_refused(worker: LoadWorker, path: Path, name: str) -> None:
    kv, said = VOCABULARIES[name]
    write_changed(path, LLAMA, kv)
    answer = worker.ask(path)
    if name == "no model":  # token ids can be evaluated without
        assert answer["native"] is None
        answer["native"] = answer["check"]
    assert_refused(answer, "check", "ModelFileError", str(path), said)


def test_a_byte_level_vocabulary_needs_its_merges(worker: LoadWorker, path: Path) -> None:
    write_changed(path, BPE, {T + "merges": None})
    said = "key 'tokenizer.ggml.merges' is missing, which a 'gpt2' tokenizer needs"
    assert_refused(worker.ask(path), "check", "ModelFileError", said)


@pytest.mark.parametrize("model", ["t5", "plamo2", "gemma4", "hybriddna", "x", ""])
@pytest.mark.parametrize("config", [LLAMA, BPE], ids=["spm", "bpe"])
def test_another_tokenizer_is_refused_with_the_supported_ones(
    worker: LoadWorker, path: Path, config: TinyConfig, model: str
) -> None:
    write_changed(path, config, {T + "model": text(model)})
    said = (f"tokenizer '{model}'", "supported are 'llama'", "'gpt2'")
    assert_refused(worker.ask(path), "check", "UnsupportedModelError", str(path), *said)


def test_a_pre_tokenizer_that_llama_cpp_does_not_know_is_refused(worker: LoadWorker, path: Path) -> None:
    write_changed(path, BPE, {T + "pre": text("zork")})
    assert_refused(worker.ask(path), "lazy", "ModelFileError", str(path), "unknown pre-tokenizer type: 'zork'")


@pytest.mark.parametrize("name", ["bos", "eos", "eot", "unknown", "padding"])
@pytest.mark.parametrize("token", [270, 2**31 - 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("config", [LLAMA, BPE], ids=["spm", "bpe"])
def test_a_special_id_out_of_range_is_dropped(
    worker: LoadWorker, path: Path, config: TinyConfig, name: str, token: int
) -> None:
    write_changed(path, config, {f"{T}{name}_token_id": Kv(token, GGUFValueType.UINT32)})
    assert_accepted(worker.ask(path))


STRANGE: dict[str, dict[str, Any]] = {
    "invalid UTF-8": {T + "tokens": tokens_with({268: b"\xff\xfe", 269: b"a\x80"})},
    "surrogates": {T + "tokens": tokens_with({268: b"\xed\xa0\x80"})},
    "an empty token": {T + "tokens": tokens_with({269: ""})},
    "line breaks and controls": {T + "tokens": tokens_with({268: "\n\n", 269: "\x1b[31m"})},
    "a long token": {T + "tokens": tokens_with({269: "x" * 100_000})},
    "scores of NaN": {T + "scores": array([float("nan")] * 270, GGUFValueType.FLOAT32)},
    "unknown types": {T + "token_type": types_with({268: 99, 269: -1})},
    "no scores and types": {T + "scores": None, T + "token_type": None},
    "no ids": {f"{T}{name}_token_id": None for name in ("bos", "eos", "unknown")},
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_vocabulary_is_read(worker: LoadWorker, path: Path, name: str) -> None:
    write_changed(path, LLAMA, STRANGE[name])
    assert_accepted(worker.ask(path))


@pytest.mark.parametrize("merges", [[], [""], [" "], ["a"], ["  ", "a b c", "t h", "t h", "\0 a", b"\xff \xfe"]])
def test_merges_that_say_nothing_are_ignored(worker: LoadWorker, path: Path, merges: list[Any]) -> None:
    write_changed(path, BPE, {T + "merges": array(merges)})
    assert_accepted(worker.ask(path))
