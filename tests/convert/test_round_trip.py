"""A real model, taken back to a Hugging Face folder and converted again, is the same model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from convert.gguf_to_hf import fields, values, write_hf_folder
from gguf import GGUFReader
from lazygguf.tools.quantize.command import QuantizeOptions, run_quantizer
from lazygguf.tools.quantize.quant_types import quant_type

# How llama.cpp's converter recognises a tokenizer: a hash of the ids of this text. Facts about public models.
CHECK_TEXT = (
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u200d🌫"
    "️ (multiple emojis concatenated) ✅ 🦙🦙 3 33 333 3"
    "333 33333 333333 3333333 33333333 3.3 3..3 3...3"
    " កាន់តែពិសេសអាច😁 ?我想在apple工作1314151天～ ------===="
    "=== нещо на Български ''''''```````\"\"\"\"......!!!"
    "!!!?????? I've been 'told he's there, 'RE you su"
    "re? 'M not sure I'll make it, 'D you like some t"
    "ea? We'Ve a'lL"
)
HASHES = {
    "smollm": "855059429035d75a914d1eda9f10a876752e281a054a7a3d421ef0533e5b6249",
    "qwen2": "e636dc30a262dcc0d8c323492e32ae2b70728f4df7dfe9737d9f920a282b8aea",
}
PROMPT = "The three largest cities of France are"


@pytest.fixture(params=["smollm2_path", "qwen_path"])
def model_path(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.mark.model
def test_a_real_model_survives_the_round_trip(model_path: Path, tmp_path: Path, convert: Callable[..., int]) -> None:
    folder, out, plain = tmp_path / "hf", tmp_path / "again.gguf", tmp_path / "plain.gguf"
    write_hf_folder(model_path, folder)
    assert convert(folder, "--outfile", out, "--outtype", "f32") == 0
    assert_same_tensors(model_path, out)
    assert_same_tokenizer(model_path, out)
    assert_known_tokenizer(folder, fields(GGUFReader(out))["tokenizer.ggml.pre"])
    (folder / "model.safetensors").unlink()
    # llama.cpp's own F32 file of the same model: same weights, so the same words
    run_quantizer(model_path, plain, QuantizeOptions(quant_type("F32").ftype, allow_requantize=True), lambda *_: None)
    assert greedy_text(out) == greedy_text(plain)


def assert_same_tensors(first: Path, second: Path) -> None:
    a, b = ({t.name: t for t in GGUFReader(path).tensors} for path in (first, second))
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert np.array_equal(values(tensor), values(b[name])), name


def assert_same_tokenizer(first: Path, second: Path) -> None:
    a, b = (
        {key: value for key, value in fields(GGUFReader(path)).items() if key.startswith("tokenizer.")}
        for path in (first, second)
    )
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert value == b[key], key


def assert_known_tokenizer(folder: Path, pre: str) -> None:
    """The tokenizer's ids of the check text are those of the public model that has this pre-tokenizer."""
    tokenizers = pytest.importorskip("tokenizers")
    ids: Any = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode(CHECK_TEXT).ids
    assert hashlib.sha256(str(ids).encode()).hexdigest() == HASHES[pre]


def greedy_text(path: Path) -> str:
    import llama_cpp

    model = llama_cpp.Llama(str(path), n_ctx=128, verbose=False, seed=1)
    result: Any = model.create_completion(PROMPT, max_tokens=24, temperature=0.0)
    text: str = result["choices"][0]["text"]
    assert text.strip()
    return text
