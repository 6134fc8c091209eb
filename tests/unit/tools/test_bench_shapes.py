"""Models of random weights: they open in both runtimes, say finite things, and have the types llama.cpp gives."""

from __future__ import annotations

import json
from dataclasses import replace
from math import prod
from pathlib import Path

import llama_cpp
import numpy as np
import pytest
from gguf import GGMLQuantizationType

pytest.importorskip("lazygguf.tools.bench.command", reason="lazygguf is not installed with its tools")

from lazygguf.tools.bench.shapes import SHAPES, RandomBlocks, make_vocab, shape_file, tensor_shapes
from lazygguf.tools.bench.text import TEXT
from lazygguf.tools.convert.plan import Hparams
from lazygguf.tools.quantize.quant_types import quant_type

from lazygguf import LazyModel
from lazygguf._ffi import NativeFile
from lazygguf.cli.main import main
from lazygguf.text.tokenizer import Tokenizer

TINY = Hparams(
    arch="llama",
    n_vocab=512,
    n_ctx=512,
    n_embd=256,
    n_ff=512,
    n_layer=4,
    n_head=4,
    n_head_kv=2,
    n_embd_head=64,
    rms_eps=1e-5,
    rope_theta=10000.0,
)


def tensor_types(path: Path) -> dict[str, str]:
    with NativeFile(path) as file:
        return {tensor.name: tensor.type_name.upper() for tensor in file.tensors}


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q8_0", "Q4_K_M", "F16", "BF16"])
def test_a_file_of_random_weights_runs_in_both_runtimes(kind: str, tmp_path: Path) -> None:
    path = shape_file("tiny", TINY, quant_type(kind), tmp_path)
    ids = list(range(3, 103))
    with LazyModel(path, keep="off", weights="as-is", n_threads=1) as model:
        model.eval(ids)
        ours = model.logits
    theirs = llama_cpp.Llama(str(path), n_ctx=512, n_threads=1, flash_attn=True, verbose=False)
    theirs.eval(ids)
    logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(theirs.ctx, -1), (512,))
    assert ours is not None and np.isfinite(ours).all() and np.std(ours) > 1e-3
    assert np.sum((ours - logits) ** 2) <= 1e-4 * np.sum(logits**2)
    theirs.close()


def test_the_mix_of_types_is_the_quantizers_own(tmp_path: Path) -> None:
    types = tensor_types(shape_file("tiny", TINY, quant_type("Q4_K_M"), tmp_path))
    assert types["blk.0.attn_q.weight"] == "Q4_K"
    assert types["output.weight"] == "Q6_K"
    assert {types[f"blk.{il}.ffn_down.weight"] for il in range(4)} == {"Q4_K", "Q6_K"}
    assert types["blk.1.attn_norm.weight"] == "F32"


def test_a_file_that_is_there_is_used_again_and_one_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = shape_file("tiny", TINY, quant_type("Q4_0"), tmp_path)
    before = path.stat().st_mtime_ns
    assert shape_file("tiny", TINY, quant_type("Q4_0"), tmp_path) == path
    assert path.stat().st_mtime_ns == before
    path.write_bytes(b"no model")
    with pytest.raises(Exception, match="GGUF"):
        shape_file("tiny", TINY, quant_type("Q4_0"), tmp_path)


def test_tensors_differ_and_the_same_seed_gives_the_same_bytes() -> None:
    blocks, again, other = RandomBlocks(0.1), RandomBlocks(0.1), RandomBlocks(0.1, seed=1)

    def data(maker: RandomBlocks, name: str) -> bytes:
        return b"".join(maker.pieces(name, (64, 256), GGMLQuantizationType.Q4_0))

    assert data(blocks, "a") == data(again, "a")
    assert data(blocks, "a") != data(blocks, "b")
    assert data(blocks, "a") != data(other, "a")


def test_the_vocabulary_has_no_token_twice() -> None:
    tokens = make_vocab(32000).tokens
    assert len(tokens) == len(set(tokens)) == 32000
    with pytest.raises(ValueError, match="n_vocab is 100, expected at least 259"):
        make_vocab(100)


def test_the_shapes_have_the_parameters_of_their_names() -> None:
    billions = {name: sum(map(prod, tensor_shapes(hparams).values())) / 1e9 for name, hparams in SHAPES.items()}
    assert billions == pytest.approx({"llama2-7b": 6.738, "llama3-8b": 8.030, "tinyllama-1.1b": 1.100}, abs=1e-3)


def test_a_shape_is_benched_and_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SHAPES, "tiny", TINY)
    arguments = ["-p", "300", "-n", "2", "-r", "1", "-t", "1", "--keep", "1:0.5", "--no-memory", "-o", "json"]
    assert main(["bench", "--shape", "tinyllama-1.1b", "--type", "Q4_0", "--shape-dir", str(tmp_path / "none")]) == 1
    monkeypatch.setitem(SHAPES, "tinyllama-1.1b", TINY)
    assert main(["bench", "--shape", "tinyllama-1.1b", "--type", "Q4_0", *arguments]) == 0
    records = json.loads(capsys.readouterr().out)
    keeps = {record["keep"] for record in records}
    assert {"off", "1:0.5"} <= keeps
    lazy = [record for record in records if record["keep"] == "1:0.5" and record["n_prompt"]]
    assert all(record["tokens_computed_pct"] == pytest.approx(75, abs=1) for record in lazy)


def test_the_vocabulary_has_the_words_of_the_text(tmp_path: Path) -> None:
    tokenizer = Tokenizer(str(shape_file("tiny", replace(TINY, n_vocab=16000), quant_type("Q4_0"), tmp_path)))
    text = TEXT.read_text(encoding="utf-8")
    n_words = len(text.split())
    n_tokens = len(tokenizer.tokenize(text.encode()))
    tokenizer.close()
    assert n_words < n_tokens < 1.7 * n_words  # as in a real vocabulary: words, and the signs between them


@pytest.mark.model
def test_a_shape_reads_the_text_and_takes_no_second_look_with_a_draft(
    smollm2_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SHAPES, "tiny", replace(TINY, n_vocab=2000, n_embd=2048, n_ff=8192, n_layer=8, n_embd_head=512))
    words = ("-p", "300", "-n", "1", "-r", "1", "-t", "1", "--no-memory", "--against", "none", "--json")
    arguments = ("bench", "--shape", "tiny", "--type", "Q4_0", "-md", str(smollm2_path), "--keep", "-1:0.2", *words)
    assert main([*arguments, "--shape-dir", str(tmp_path)]) == 0
    found = [r for r in json.loads(capsys.readouterr().out) if r["keep"] == "-1:0.2"]
    assert found[0]["text"] != "random tokens"
    assert found[0]["draft_ms"] > 0
    assert found[0]["tokens_computed_pct"] == pytest.approx(20 + found[0]["draft_pct"], abs=0.5)
