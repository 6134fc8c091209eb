"""Meta's layout: any number of shards gives the tensors that Hugging Face's layout gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from convert.gguf_to_hf import fields
from convert.tiny_checkpoints import (
    LLAMA3_ROPE,
    Spec,
    hf_weights,
    spm_model,
    write_hf,
    write_json,
    write_meta,
)
from gguf import GGUFReader

from lazygguf.errors import ModelFileError, UnsupportedModelError

SHARDED = Spec(n_embd=128, n_head=16, n_head_kv=8, n_ff=64)


def tensor_bytes(path: Path) -> dict[str, tuple[Any, ...]]:
    return {t.name: (t.tensor_type, tuple(t.shape), t.data.tobytes()) for t in GGUFReader(path).tensors}


@pytest.mark.parametrize("outtype", ["f32", "f16", "bf16", "q8_0"])
@pytest.mark.parametrize("n_shards", [1, 2, 8])
def test_shards_convert_to_the_bytes_of_the_hugging_face_folder(
    n_shards: int, outtype: str, tmp_path: Path, convert: Callable[..., int]
) -> None:
    write_hf(tmp_path / "hf", SHARDED, dtype="BF16")
    write_meta(tmp_path / "meta", SHARDED, n_shards=n_shards)
    for kind in ("hf", "meta"):
        assert convert(tmp_path / kind, "--outfile", tmp_path / f"{kind}.gguf", "--outtype", outtype) == 0
    assert tensor_bytes(tmp_path / "meta.gguf") == tensor_bytes(tmp_path / "hf.gguf")


def test_an_embedding_sharded_over_the_vocabulary_is_joined_by_rows(
    tmp_path: Path, convert: Callable[..., int]
) -> None:
    write_hf(tmp_path / "hf", SHARDED, dtype="F16")
    write_meta(tmp_path / "meta", SHARDED, n_shards=4, dtype="F16", rows_sharded_embedding=True)
    for kind in ("hf", "meta"):
        convert(tmp_path / kind, "--outfile", tmp_path / f"{kind}.gguf")
    assert tensor_bytes(tmp_path / "meta.gguf") == tensor_bytes(tmp_path / "hf.gguf")


def test_llama_3_1_has_its_rope_tensor_and_a_tiktoken_vocabulary(
    tmp_path: Path, convert: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    spec = Spec(n_vocab=656, rope_theta=5e5, rope_scaling={**LLAMA3_ROPE, "original_max_position_embeddings": 8192})
    write_hf(tmp_path / "hf", spec, dtype="BF16", tokenizer="llama-bpe")
    params = {"rope_theta": 5e5, "use_scaled_rope": True, "vocab_size": 656}
    write_meta(tmp_path / "meta", spec, tokenizer="tiktoken", params=params)
    for kind in ("hf", "meta"):
        convert(tmp_path / kind, "--outfile", tmp_path / f"{kind}.gguf")
    assert "rope factor: 8 (Llama 3.1)" in capsys.readouterr().err
    assert tensor_bytes(tmp_path / "meta.gguf") == tensor_bytes(tmp_path / "hf.gguf")
    kv = fields(GGUFReader(tmp_path / "meta.gguf"))
    assert kv["llama.context_length"] == 131072
    assert kv["tokenizer.ggml.tokens"][400] == "<|begin_of_text|>"
    assert kv["tokenizer.ggml.bos_token_id"] == 400
    assert kv["tokenizer.ggml.tokens"][kv["tokenizer.ggml.eot_token_id"]] == "<|eot_id|>"
    assert kv["tokenizer.ggml.eot_token_id"] == 409
    assert kv["tokenizer.ggml.merges"] == fields(GGUFReader(tmp_path / "hf.gguf"))["tokenizer.ggml.merges"][:144]


def test_rope_scale_sets_the_factor_that_params_json_leaves_open(tmp_path: Path, convert: Callable[..., int]) -> None:
    write_meta(tmp_path, Spec(rope_theta=5e5), params={"rope_theta": 5e5, "use_scaled_rope": True})
    convert(tmp_path, "--outfile", tmp_path / "out.gguf", "--rope-scale", 32)
    factors = next(t for t in GGUFReader(tmp_path / "out.gguf").tensors if t.name == "rope_freqs.weight")
    assert float(factors.data.max()) == 32.0


@pytest.mark.parametrize(
    ("params", "expected"),
    [({"norm_eps": 1e-5}, 4096), ({"norm_eps": 1e-6}, 2048), ({"rope_theta": 1e6}, 16384)],
    ids=["llama 2", "llama 1", "code llama"],
)
def test_the_context_length_of_each_generation_is_noted_and_ctx_overrides_it(
    params: dict[str, float],
    expected: int,
    tmp_path: Path,
    convert: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_meta(tmp_path, Spec(), params=params)
    convert(tmp_path, "--outfile", tmp_path / "out.gguf")
    assert f"context length: {expected}" in capsys.readouterr().err
    assert fields(GGUFReader(tmp_path / "out.gguf"))["llama.context_length"] == expected
    convert(tmp_path, "--outfile", tmp_path / "out.gguf", "--ctx", 512, "--force")
    assert fields(GGUFReader(tmp_path / "out.gguf"))["llama.context_length"] == 512


def test_the_tokenizer_may_lie_in_the_parent_folder(tmp_path: Path, convert: Callable[..., int]) -> None:
    write_meta(tmp_path / "7B", Spec(), tokenizer="")
    (tmp_path / "tokenizer.model").write_bytes(spm_model(400))
    assert convert(tmp_path / "7B", "--outfile", tmp_path / "out.gguf") == 0


def test_a_missing_tokenizer_names_both_places(tmp_path: Path, convert: Callable[..., int]) -> None:
    write_meta(tmp_path / "7B", Spec(), tokenizer="")
    with pytest.raises(ModelFileError, match=r"7B/tokenizer\.model nor at .*tokenizer\.model") as caught:
        convert(tmp_path / "7B", "--outfile", tmp_path / "out.gguf")
    assert str(tmp_path / "tokenizer.model") in str(caught.value)


@pytest.mark.parametrize(("lost", "named"), [(1, r"consolidated\.01\.pth"), (3, r"consolidated\.03\.pth")])
def test_a_missing_shard_is_named(lost: int, named: str, tmp_path: Path, convert: Callable[..., int]) -> None:
    write_meta(tmp_path, SHARDED, n_shards=4)
    (tmp_path / f"consolidated.{lost:02d}.pth").unlink()
    with pytest.raises(ModelFileError, match=named):
        convert(tmp_path, "--outfile", tmp_path / "out.gguf")


def test_missing_params_json_is_named(tmp_path: Path, convert: Callable[..., int]) -> None:
    write_meta(tmp_path, Spec())
    (tmp_path / "params.json").unlink()
    with pytest.raises(ModelFileError, match=r"without params\.json"):
        convert(tmp_path, "--outfile", tmp_path / "out.gguf")


def test_parameters_of_another_model_are_refused(tmp_path: Path, convert: Callable[..., int]) -> None:
    write_meta(tmp_path, Spec(), params={"n_layers": 3})
    with pytest.raises(ModelFileError, match=r"blk\.2\.attn_norm\.weight .*missing"):
        convert(tmp_path, "--outfile", tmp_path / "out.gguf")
    write_json(tmp_path / "params.json", {"dim": 64, "n_layers": 2, "n_heads": 4, "norm_eps": 1e-5, "moe": {}})
    write_meta(tmp_path, Spec(), params={"moe": {"num_experts": 8}})
    with pytest.raises(UnsupportedModelError, match="moe is set"):
        convert(tmp_path, "--outfile", tmp_path / "out.gguf")


def test_the_size_of_the_feed_forward_layer_comes_from_the_weights(tmp_path: Path, convert: Callable[..., int]) -> None:
    write_meta(tmp_path, Spec(n_ff=160), params={"multiple_of": 4096, "ffn_dim_multiplier": 1.3})
    convert(tmp_path, "--outfile", tmp_path / "out.gguf")
    assert fields(GGUFReader(tmp_path / "out.gguf"))["llama.feed_forward_length"] == 160


def test_meta_rows_are_taken_as_they_are(tmp_path: Path, convert: Callable[..., int]) -> None:
    spec = Spec()
    write_meta(tmp_path, spec, dtype="F32")
    convert(tmp_path, "--outfile", tmp_path / "out.gguf", "--outtype", "f32")
    found = next(t.data for t in GGUFReader(tmp_path / "out.gguf").tensors if t.name == "blk.0.attn_k.weight")
    halves = hf_weights(spec)["model.layers.0.self_attn.k_proj.weight"].reshape(2, 2, 8, 64)
    assert np.array_equal(found.reshape(2, 8, 2, 64), halves.swapaxes(1, 2))
