"""What the files in native/arch say of a model that is about to be written."""

from __future__ import annotations

import pytest

from lazygguf import UnsupportedModelError
from lazygguf._ffi import shape_tensors
from lazygguf._ffi.library import check, ffi, lib

SHAPE = {"n_vocab": 300, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_head_kv": 2, "n_embd_head": 24, "n_ff": 96}


def test_tensors_have_the_shapes_of_the_model_and_say_whether_they_must_be_there() -> None:
    rules = {rule.name: rule for rule in shape_tensors("qwen3", **SHAPE)}
    assert rules["blk.1.attn_q.weight"].ne[:2] == (64, 96) and rules["blk.1.attn_q.weight"].required
    assert rules["blk.0.attn_k_norm.weight"].ne[:2] == (24, 1)
    assert rules["token_embd.weight"].ne[:2] == (64, 300)
    assert not rules["output.weight"].required and not rules["blk.0.attn_q.bias"].required
    assert "rope_freqs.weight" not in rules and "blk.2.attn_q.weight" not in rules


def test_biases_are_required_where_the_architecture_has_them() -> None:
    assert all(rule.required for rule in shape_tensors("qwen2", **SHAPE) if rule.name.endswith("attn_v.bias"))


def test_an_architecture_that_does_not_run_is_named_with_those_that_do() -> None:
    with pytest.raises(UnsupportedModelError, match=r"architecture 'olmo9'; supported are 'llama' .*'qwen3'"):
        shape_tensors("olmo9", **SHAPE)


@pytest.mark.parametrize("name", sorted(SHAPE))
def test_a_number_below_1_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a number of the shape is 0, expected at least 1"):
        shape_tensors("llama", **{**SHAPE, name: 0})


def test_the_c_call_refuses_a_negative_count_and_no_name() -> None:
    n = ffi.new("int32_t *")
    shape = ffi.new("lazy_shape *", {"arch": ffi.NULL, **SHAPE})
    with pytest.raises(ValueError, match="no architecture is named"):
        check(lib.lazy_shape_tensors(ffi.NULL, ffi.NULL, 0, n, shape))
    name = ffi.new("char[]", b"llama")
    shape.arch = name
    with pytest.raises(ValueError, match="n_max is -1, expected at least 0"):
        check(lib.lazy_shape_tensors(ffi.NULL, ffi.NULL, -1, n, shape))
