"""Hugging Face folders: forms and shards give one result, and what is wrong or foreign is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from convert.gguf_to_hf import fields
from convert.tiny_checkpoints import LLAMA3_ROPE, Spec, hf_config, hf_weights, write_hf, write_json
from gguf import GGUFReader

from lazygguf.errors import LazyError, ModelFileError, UnsupportedModelError

Convert = Callable[..., int]


def change_json(path: Path, **changes: Any) -> None:
    """Sets keys; None removes one."""
    value = json.loads(path.read_text(encoding="utf-8"))
    value.update(changes)
    write_json(path, {key: item for key, item in value.items() if item is not None})


def failing(convert: Convert, folder: Path, message: str, kind: type[LazyError] = ModelFileError, *more: Any) -> None:
    """Converting must fail with the message and leave nothing."""
    before = sorted(folder.iterdir())
    out = folder / "out.gguf"
    with pytest.raises(kind, match=message) as caught:
        convert(folder, "--outfile", out, *more)
    assert "\n" not in str(caught.value)
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("form", ["safetensors", "bin"])
@pytest.mark.parametrize("n_shards", [1, 3])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_every_form_and_number_of_shards_gives_one_file(
    form: str, n_shards: int, dtype: str, tmp_path: Path, convert: Convert
) -> None:
    spec = Spec(arch="qwen2")
    write_hf(tmp_path / "one", spec, dtype=dtype, tokenizer="qwen2")
    write_hf(tmp_path / "other", spec, dtype=dtype, form=form, n_shards=n_shards, tokenizer="qwen2")
    for kind in ("one", "other"):
        convert(tmp_path / kind, "--outfile", tmp_path / f"{kind}.gguf", "--name", "same")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "other.gguf").read_bytes()


@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_a_missing_shard_is_named(form: str, tmp_path: Path, convert: Convert) -> None:
    write_hf(tmp_path, Spec(), form=form, n_shards=3)
    next(tmp_path.glob("*-00002-of-00003*")).unlink()
    failing(convert, tmp_path, r"1 of 3 weight files missing: \w+-00002-of-00003\.")


def test_a_missing_shard_is_named_without_an_index_too(tmp_path: Path, convert: Convert) -> None:
    write_hf(tmp_path, Spec(), n_shards=3)
    (tmp_path / "model.safetensors.index.json").unlink()
    (tmp_path / "model-00003-of-00003.safetensors").unlink()
    failing(convert, tmp_path, r"missing: model-00003-of-00003\.safetensors")


def test_an_index_that_does_not_fit_the_files_is_refused(tmp_path: Path, convert: Convert) -> None:
    write_hf(tmp_path, Spec(), n_shards=2)
    path = tmp_path / "model.safetensors.index.json"
    table = json.loads(path.read_text())["weight_map"]
    last = "model-00002-of-00002.safetensors"
    write_json(path, {"weight_map": {**table, "model.layers.9.mlp.up_proj.weight": last}})
    failing(convert, tmp_path, r"1 tensors of the index are in no file, such as 'model\.layers\.9")
    write_json(path, {"weight_map": {name: part for name, part in table.items() if name != "lm_head.weight"}})
    failing(convert, tmp_path, r"'lm_head\.weight', which the index does not name")
    other = {name: part for name, part in table.items()}
    other["lm_head.weight"] = "model-00001-of-00002.safetensors" if other["lm_head.weight"] == last else last
    write_json(path, {"weight_map": other})
    failing(convert, tmp_path, r"'lm_head\.weight' is in .*, the index says")
    for outside in ("../model-00001-of-00002.safetensors", "/etc/passwd", "..", ""):
        write_json(path, {"weight_map": {**table, "lm_head.weight": outside}})
        failing(convert, tmp_path, "no file of this folder")
    path.write_text("{")
    failing(convert, tmp_path, "no valid JSON")
    write_json(path, {"weight_map": {}})
    failing(convert, tmp_path, "no weight_map")


def test_weights_that_are_missing_left_over_or_of_another_shape_are_named(tmp_path: Path, convert: Convert) -> None:
    weights = hf_weights(Spec())
    less = {name: w for name, w in weights.items() if name != "model.layers.1.mlp.up_proj.weight"}
    write_hf(tmp_path, Spec(), weights=less)
    failing(convert, tmp_path, r"blk\.1\.ffn_up\.weight is missing")
    write_hf(
        tmp_path,
        Spec(),
        weights={**weights, "model.layers.0.self_attn.q_norm.weight": weights["model.norm.weight"]},
    )
    failing(convert, tmp_path, r"blk\.0\.attn_q_norm\.weight has no place in a llama model", UnsupportedModelError)
    write_hf(
        tmp_path,
        Spec(),
        weights={**weights, "model.layers.0.self_attn.gate.weight": weights["model.norm.weight"]},
    )
    failing(convert, tmp_path, r"gate\.weight' has no place in a llama model", UnsupportedModelError)
    write_hf(
        tmp_path,
        Spec(),
        weights={**weights, "model.layers.0.mlp.up_proj.weight": np.zeros((97, 64), np.float32)},
    )
    failing(convert, tmp_path, r"blk\.0\.ffn_up\.weight has the shape \[97, 64\], expected \[96, 64\]")
    write_hf(
        tmp_path,
        Spec(),
        weights={**weights, "model.layers.2.input_layernorm.weight": weights["model.norm.weight"]},
    )
    failing(convert, tmp_path, r"blk\.2\.attn_norm\.weight has no place", UnsupportedModelError)


def test_buffers_that_rope_computes_are_left_out(tmp_path: Path, convert: Convert) -> None:
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32)}
    write_hf(tmp_path, Spec(), weights={**hf_weights(Spec()), **extra})
    assert convert(tmp_path, "--outfile", tmp_path / "out.gguf") == 0


@pytest.mark.parametrize(
    ("changes", "message", "kind"),
    [
        (
            {"architectures": ["MixtralForCausalLM"]},
            "MixtralForCausalLM; LlamaForCausalLM, Mistral",
            UnsupportedModelError,
        ),
        ({"architectures": []}, "no architectures", ModelFileError),
        (
            {"architectures": ["MistralForCausalLM"], "sliding_window": 64},
            "window of 64 .*--ctx 64",
            UnsupportedModelError,
        ),
        ({"quantization_config": {"quant_method": "gptq"}}, r"quantized \('gptq'\)", UnsupportedModelError),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'", UnsupportedModelError),
        (
            {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
            "'dynamic'; linear, yarn and llama3",
            UnsupportedModelError,
        ),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "'longrope'", UnsupportedModelError),
        ({"rope_scaling": {"type": "linear"}}, "factor is missing", ModelFileError),
        ({"rope_scaling": {**LLAMA3_ROPE, "low_freq_factor": 4.0}}, "must be below", ModelFileError),
        ({"rope_scaling": 7}, "rope_scaling is 7", ModelFileError),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor", UnsupportedModelError),
        ({"hidden_size": None}, "hidden_size is missing, expected an integer", ModelFileError),
        ({"hidden_size": "64"}, "hidden_size is '64'", ModelFileError),
        ({"hidden_size": 65}, "65 does not divide into 4 heads", ModelFileError),
        ({"num_attention_heads": 0}, "does not divide into 0 heads", ModelFileError),
        ({"num_key_value_heads": 3}, "do not divide into 3", ModelFileError),
        ({"rms_norm_eps": 0}, "rms_norm_eps is 0, expected a number in", ModelFileError),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan", ModelFileError),
        ({"rope_theta": -1}, "rope_theta is -1", ModelFileError),
        ({"vocab_size": 401}, "vocab_size is 401, the embedding has 400 rows", ModelFileError),
        ({"max_position_embeddings": None}, "max_position_embeddings is missing", ModelFileError),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'", ModelFileError),
    ],
)
def test_a_config_that_is_wrong_or_of_another_family_says_why(
    changes: dict[str, Any], message: str, kind: type[LazyError], tmp_path: Path, convert: Convert
) -> None:
    write_hf(tmp_path, Spec())
    change_json(tmp_path / "config.json", **changes)
    failing(convert, tmp_path, message, kind)


def test_a_layer_count_that_no_model_has_is_refused_at_once(tmp_path: Path, convert: Convert) -> None:
    import time

    write_hf(tmp_path, Spec())
    change_json(tmp_path / "config.json", num_hidden_layers=10**9)
    start = time.perf_counter()
    failing(convert, tmp_path, r"n_layer is 1000000000")
    assert time.perf_counter() - start < 2.0


def test_a_sliding_window_that_the_context_stays_inside_is_converted(tmp_path: Path, convert: Convert) -> None:
    config = {"architectures": ["MistralForCausalLM"], "sliding_window": 64}
    write_hf(tmp_path, Spec(config=config))
    assert convert(tmp_path, "--outfile", tmp_path / "out.gguf", "--ctx", 64) == 0
    assert fields(GGUFReader(tmp_path / "out.gguf"))["llama.context_length"] == 64


def test_what_config_json_leaves_open_is_noted(
    tmp_path: Path, convert: Convert, capsys: pytest.CaptureFixture[str]
) -> None:
    write_hf(tmp_path, Spec(tied=True, rms_eps=1e-6))
    gone = dict.fromkeys(["rms_norm_eps", "rope_theta", "num_key_value_heads", "tie_word_embeddings"])
    change_json(tmp_path / "config.json", **gone)
    convert(tmp_path, "--outfile", tmp_path / "out.gguf")
    notes = capsys.readouterr().err
    for words in (
        "no rms_norm_eps: 1e-06",
        "no rope_theta: 10000",
        "no num_key_value_heads: 2",
        "no lm_head.weight",
    ):
        assert words in notes


def test_rope_parameters_of_newer_files_mean_the_same(tmp_path: Path, convert: Convert) -> None:
    spec = Spec(rope_theta=5e5, rope_scaling=LLAMA3_ROPE)
    for kind in ("old", "new"):
        write_hf(tmp_path / kind, spec)
    parameters = {**LLAMA3_ROPE, "rope_theta": 5e5}
    change_json(tmp_path / "new" / "config.json", rope_theta=None, rope_scaling=None, rope_parameters=parameters)
    for kind in ("old", "new"):
        convert(tmp_path / kind, "--outfile", tmp_path / f"{kind}.gguf", "--name", "same")
    assert (tmp_path / "old.gguf").read_bytes() == (tmp_path / "new.gguf").read_bytes()


@pytest.mark.parametrize("same", [True, False])
def test_an_lm_head_beside_tied_embeddings_is_left_out(
    same: bool, tmp_path: Path, convert: Convert, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = Spec(tied=True)
    weights = hf_weights(spec)
    head = weights["model.embed_tokens.weight"] * (1 if same else 2)
    write_hf(tmp_path, spec, weights={**weights, "lm_head.weight": head})
    convert(tmp_path, "--outfile", tmp_path / "out.gguf")
    assert "output.weight" not in {t.name for t in GGUFReader(tmp_path / "out.gguf").tensors}
    assert ("differs from the embedding" in capsys.readouterr().err) is not same


def test_untied_embeddings_need_an_lm_head(tmp_path: Path, convert: Convert) -> None:
    weights = {name: w for name, w in hf_weights(Spec()).items() if name != "lm_head.weight"}
    write_hf(tmp_path, Spec(), weights=weights)
    failing(convert, tmp_path, r"tie_word_embeddings is false and the weights have no lm_head\.weight")


def test_biases_that_no_runtime_reads_are_refused(tmp_path: Path, convert: Convert) -> None:
    bias = {"model.layers.0.mlp.up_proj.bias": np.ones(96, np.float32)}
    write_hf(tmp_path, Spec(), weights={**hf_weights(Spec()), **bias})
    failing(convert, tmp_path, r"blk\.0\.ffn_up\.bias has no place in a llama model", UnsupportedModelError)


def test_what_is_no_checkpoint_folder_is_told(tmp_path: Path, convert: Convert) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        convert(tmp_path / "nowhere")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(NotADirectoryError, match="lazygguf quantize takes GGUF files"):
        convert(tmp_path / "model.gguf")
    with pytest.raises(ModelFileError, match="neither a Hugging Face folder"):
        convert(tmp_path)
    write_json(tmp_path / "config.json", hf_config(Spec()))
    with pytest.raises(ModelFileError, match=r"no model\*\.safetensors"):
        convert(tmp_path)


def test_a_value_that_f16_cannot_hold_is_refused_and_bf16_takes_it(tmp_path: Path, convert: Convert) -> None:
    weights = hf_weights(Spec())
    weights["model.layers.0.mlp.down_proj.weight"][3, 5] = 70000.0
    for dtype in ("F32", "BF16"):
        write_hf(tmp_path / dtype, Spec(), weights=weights, dtype=dtype)
        with pytest.raises(
            UnsupportedModelError, match=r"blk\.0\.ffn_down\.weight holds (70000|70144).*--outtype bf16"
        ):
            convert(tmp_path / dtype, "--outfile", tmp_path / "out.gguf", "--outtype", "f16")
        assert not (tmp_path / "out.gguf").exists()
        convert(tmp_path / dtype, "--outfile", tmp_path / "out.gguf", "--outtype", "bf16", "--force")
        (tmp_path / "out.gguf").unlink()


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("outtype", ["f32", "bf16", "f16", "q8_0"])
def test_weights_that_are_no_numbers_are_noted_by_tensor(
    dtype: str, outtype: str, tmp_path: Path, convert: Convert, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = hf_weights(Spec())
    weights["model.layers.0.mlp.down_proj.weight"][3, 5:7] = np.nan
    weights["model.layers.1.self_attn.q_proj.weight"][0, 0] = -np.inf
    write_hf(tmp_path, Spec(), weights=weights, dtype=dtype)
    with np.errstate(all="ignore"):
        convert(tmp_path, "--outfile", tmp_path / "out.gguf", "--outtype", outtype)
    out, err = capsys.readouterr()
    notes = [line for line in err.splitlines() if "NaN or infinite" in line]
    assert [note.split(" values ")[0] for note in notes] == [
        "note: blk.0.ffn_down.weight holds 2", "note: blk.1.attn_q.weight holds 1"
    ]  # fmt: skip
    assert "lazygguf chat" not in out and "note: no line that runs it" in err
