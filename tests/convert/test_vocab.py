"""Tokenizers: llama.cpp splits text with the converted vocabulary as the original tokenizer does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import pytest
from convert.gguf_to_hf import fields
from convert.tiny_checkpoints import (
    PRE_TOKENIZERS,
    Spec,
    added_token,
    bpe_json,
    corpus,
    spm_model,
    trained_bpe,
    write_hf,
    write_json,
    write_meta,
    write_tiktoken,
)
from gguf import GGUFReader
from lazygguf.tools.convert.vocab.tiktoken import byte_texts, special_names

from lazygguf.errors import ModelFileError, UnsupportedModelError

Convert = Callable[..., int]
TEXTS = [
    "Hello world",
    "  two  spaces\n\n\tand a tab",
    "def run(self, args=None):\n    return args[0] + 12345\n",
    "don't you'll We'Ve",
    "naïve café 我想在apple工作 🚀 😶\u200d🌫️",
    "",
    " ",
    "1 22 333 4444 55555",
    "\r\n \r\n x",
]


def llama_cpp_ids(path: Path, text: str) -> list[int]:
    llama_cpp = pytest.importorskip("llama_cpp")
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    ids: list[int] = model.tokenize(text.encode(), add_bos=False, special=True)
    return ids


@pytest.mark.parametrize("n_vocab", [400, 460])
def test_a_sentencepiece_vocabulary_splits_as_sentencepiece_does(
    n_vocab: int, tmp_path: Path, convert: Convert
) -> None:
    import sentencepiece

    write_hf(tmp_path, Spec(n_vocab=n_vocab), tokenizer="")
    (tmp_path / "tokenizer.model").write_bytes(spm_model(400))
    convert(tmp_path, "--outfile", tmp_path / "out.gguf")
    processor = sentencepiece.SentencePieceProcessor(model_proto=spm_model(400))
    for text in [*TEXTS, corpus()[:4000]]:
        assert llama_cpp_ids(tmp_path / "out.gguf", text) == processor.EncodeAsIds(text), text
    kv = fields(GGUFReader(tmp_path / "out.gguf"))
    assert len(kv["tokenizer.ggml.tokens"]) == n_vocab == len(set(kv["tokenizer.ggml.tokens"]))
    assert kv["tokenizer.ggml.token_type"][:4] == [2, 3, 3, 6]
    assert (kv["tokenizer.ggml.bos_token_id"], kv["tokenizer.ggml.eos_token_id"]) == (1, 2)


def spm_as_json(n_vocab: int) -> dict[str, Any]:
    """A tokenizer.json of the SentencePiece model as transformers makes it: merges by the pieces' scores."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=spm_model(n_vocab))
    pieces = [processor.IdToPiece(i) for i in range(processor.vocab_size())]
    ids = {piece: i for i, piece in enumerate(pieces)}
    merges = []
    for i, piece in enumerate(pieces):
        splits = [(piece[:n], piece[n:]) for n in range(1, len(piece))]
        known = [(a, b) for a, b in splits if a in ids and b in ids] if i > 258 else []
        merges += [(processor.GetScore(i), ids[a], ids[b], f"{a} {b}") for a, b in known]
    merges.sort(key=lambda merge: (-merge[0], merge[1], merge[2]))
    prepend = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ],
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "normalizer": prepend,
        "pre_tokenizer": None,
        "added_tokens": [added_token(i, text) for i, text in enumerate(["<unk>", "<s>", "</s>"])],
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "<s>", "type_id": 1}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": ids,
            "merges": [merge[3] for merge in merges],
        },
    }


def test_a_sentencepiece_vocabulary_without_its_model_file_splits_alike(tmp_path: Path, convert: Convert) -> None:
    import sentencepiece

    write_hf(tmp_path, Spec(), tokenizer="")
    write_json(tmp_path / "tokenizer.json", spm_as_json(400))
    write_json(tmp_path / "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    convert(tmp_path, "--outfile", tmp_path / "out.gguf")
    kv = fields(GGUFReader(tmp_path / "out.gguf"))
    assert kv["tokenizer.ggml.model"] == "llama"
    assert kv["tokenizer.ggml.add_bos_token"] is True
    processor = sentencepiece.SentencePieceProcessor(model_proto=spm_model(400))
    for text in [*TEXTS, corpus()[:4000]]:
        assert llama_cpp_ids(tmp_path / "out.gguf", text) == processor.EncodeAsIds(text), text


@pytest.mark.parametrize("pre", list(PRE_TOKENIZERS))
def test_a_byte_level_vocabulary_splits_as_the_tokenizers_library_does(
    pre: str, tmp_path: Path, convert: Convert
) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    write_hf(tmp_path, Spec(n_vocab=700), tokenizer=pre)
    convert(tmp_path, "--outfile", tmp_path / "out.gguf")
    original = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    kv = fields(GGUFReader(tmp_path / "out.gguf"))
    assert kv["tokenizer.ggml.pre"] == pre
    for text in [*TEXTS, "<|im_start|>user\nhi<|im_end|>", corpus()[:4000]]:
        assert llama_cpp_ids(tmp_path / "out.gguf", text) == original.encode(text, add_special_tokens=False).ids, text
    assert kv["tokenizer.ggml.tokens"][-2:] == ["[PAD698]", "[PAD699]"]
    assert kv["tokenizer.ggml.token_type"][-5:] == [3, 3, 3, 5, 5]
    assert (kv["tokenizer.ggml.bos_token_id"], kv["tokenizer.ggml.eos_token_id"]) == (696, 697)
    assert kv["tokenizer.ggml.padding_token_id"] == 695
    assert kv["tokenizer.ggml.add_bos_token"] is False
    assert "im_start" in kv["tokenizer.chat_template"]


def test_a_tiktoken_vocabulary_splits_as_its_byte_pairs_say(tmp_path: Path, convert: Convert) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    write_meta(tmp_path, Spec(n_vocab=956), tokenizer="tiktoken")
    convert(tmp_path, "--outfile", tmp_path / "out.gguf")
    texts, merges = trained_bpe(700)
    kv = fields(GGUFReader(tmp_path / "out.gguf"))
    assert kv["tokenizer.ggml.tokens"][:700] == texts
    assert kv["tokenizer.ggml.merges"] == merges
    assert kv["tokenizer.ggml.pre"] == "llama-bpe"
    original = tokenizers.Tokenizer.from_str(json.dumps(bpe_json(texts, merges, [], "llama-bpe")))
    for text in [*TEXTS, corpus()[:4000]]:
        assert llama_cpp_ids(tmp_path / "out.gguf", text) == original.encode(text).ids, text


def test_llama_3_names_its_special_tokens_where_meta_does() -> None:
    old, new = special_names(False), special_names(True)
    for names in (old, new):
        assert len(names) == len(set(names)) == 256
        assert names[6:8] == ["<|start_header_id|>", "<|end_header_id|>"]
        assert names[9] == "<|eot_id|>"
    assert old[8] == "<|reserved_special_token_4|>"
    assert old[255] == "<|reserved_special_token_250|>"
    assert new[4] == "<|finetune_right_pad_id|>"
    assert new[8:11] == ["<|eom_id|>", "<|eot_id|>", "<|python_tag|>"]
    assert new[255] == "<|reserved_special_token_247|>"
    assert len(set(byte_texts())) == 256


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"IQ== 0\nIQ== 1\n", "again or empty"),
        (b"IQ== 0\nIg== 2\n", "ranks are not"),
        (b"IQ== 0\n!!! 1\n", "line 2"),
        (b"IQ== 0\nIg==\n", "line 2"),
        (b"IQ== 0\n", "1 tokens and 256 special ones for an embedding of 400"),
    ],
)
def test_a_damaged_tiktoken_file_is_refused(data: bytes, message: str, tmp_path: Path, convert: Convert) -> None:
    write_meta(tmp_path, Spec(), tokenizer="")
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(ModelFileError, match=message):
        convert(tmp_path, "--outfile", tmp_path / "out.gguf")


def test_a_missing_tokenizer_says_what_was_looked_for(tmp_path: Path, convert: Convert) -> None:
    write_hf(tmp_path, Spec(), tokenizer="")
    with pytest.raises(ModelFileError, match=r"no tokenizer\.json in it, and no tokenizer\.model either; download"):
        convert(tmp_path, "--outfile", tmp_path / "out.gguf")
    write_tiktoken(tmp_path / "tokenizer.model", 300)
    with pytest.raises(ModelFileError, match="is tiktoken text"):
        convert(tmp_path, "--outfile", tmp_path / "out.gguf")
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\x05hello")
    with pytest.raises(ModelFileError, match="not a SentencePiece model"):
        convert(tmp_path, "--outfile", tmp_path / "out.gguf")


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path, convert: Convert) -> None:
    write_hf(tmp_path, Spec(n_vocab=300), tokenizer="")
    (tmp_path / "tokenizer.model").write_bytes(spm_model(400))
    with pytest.raises(ModelFileError, match="400 tokens and the embedding 300 rows"):
        convert(tmp_path, "--outfile", tmp_path / "out.gguf")
    (tmp_path / "tokenizer.model").unlink()
    texts, merges = trained_bpe(400)
    write_json(tmp_path / "tokenizer.json", bpe_json(texts, merges, [], "smollm"))
    with pytest.raises(ModelFileError, match="reaches id 399, the embedding has 300 rows"):
        convert(tmp_path, "--outfile", tmp_path / "out.gguf")


def test_an_added_token_past_the_embedding_is_left_out_and_noted(
    tmp_path: Path, convert: Convert, capsys: pytest.CaptureFixture[str]
) -> None:
    write_hf(tmp_path, Spec())
    write_json(tmp_path / "added_tokens.json", {"<pad>": 400})
    convert(tmp_path, "--outfile", tmp_path / "out.gguf")
    assert "'<pad>' has the id 400, the embedding has 400 rows: left out" in capsys.readouterr().err
    assert len(fields(GGUFReader(tmp_path / "out.gguf"))["tokenizer.ggml.tokens"]) == 400


def test_padding_never_repeats_a_token(tmp_path: Path, convert: Convert) -> None:
    write_hf(tmp_path, Spec(n_vocab=404), tokenizer="")
    (tmp_path / "tokenizer.model").write_bytes(spm_model(400))
    write_json(tmp_path / "added_tokens.json", {"[PAD403]": 400, "[PAD402]": 401})
    convert(tmp_path, "--outfile", tmp_path / "out.gguf")
    tokens = fields(GGUFReader(tmp_path / "out.gguf"))["tokenizer.ggml.tokens"]
    assert tokens[400:] == ["[PAD403]", "[PAD402]", "[PAD402]_", "[PAD403]_"]


def test_two_ids_of_one_text_are_refused(tmp_path: Path, convert: Convert) -> None:
    write_hf(tmp_path, Spec(n_vocab=402), tokenizer="")
    (tmp_path / "tokenizer.model").write_bytes(spm_model(400))
    write_json(tmp_path / "added_tokens.json", {"<s>": 400})
    with pytest.raises(ModelFileError, match="the tokens 1 and 400 are both '<s>'"):
        convert(tmp_path, "--outfile", tmp_path / "out.gguf")


def changed_bpe(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    write_hf(folder, Spec(n_vocab=420), tokenizer="smollm")
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    change(tokenizer)
    write_json(folder / "tokenizer.json", tokenizer)


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str, type[Exception]]] = {
    "another splitter": (
        lambda t: t["pre_tokenizer"]["pretokenizers"][0].update(individual_digits=False),
        "--pre NAME",
        UnsupportedModelError,
    ),
    "a space in front": (
        lambda t: t["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True),
        "--pre NAME",
        UnsupportedModelError,
    ),
    "another normalizer": (
        lambda t: t.update(normalizer={"type": "Lowercase"}),
        "normalizer has a step 'Lowercase'",
        UnsupportedModelError,
    ),
    "no pre-tokenizer": (lambda t: t.update(pre_tokenizer=None), "--pre NAME", UnsupportedModelError),
    "WordPiece": (
        lambda t: t["model"].update(type="WordPiece"),
        "'WordPiece'; BPE and",
        UnsupportedModelError,
    ),
    "no model": (lambda t: t.pop("model"), "model is None", UnsupportedModelError),
    "no merges": (lambda t: t["model"].update(merges=[]), "no merges", ModelFileError),
    "a merge of nothing": (lambda t: t["model"]["merges"].append("zz qq"), "makes no token", ModelFileError),
    "merges that are numbers": (
        lambda t: t["model"].update(merges=[1, 2]),
        "merge 0 is 1, expected two pieces",
        ModelFileError,
    ),
    "ids that are texts": (
        lambda t: t["model"]["vocab"].update(a="7"),
        "no table of token ids",
        ModelFileError,
    ),
    "an id twice": (lambda t: t["model"]["vocab"].update(a=5), "given twice", ModelFileError),
    "an added token without text": (
        lambda t: t["added_tokens"].append({"id": 3}),
        "added_tokens holds",
        ModelFileError,
    ),
    "an added token at -1": (
        lambda t: t["added_tokens"].append(added_token(-1, "x")),
        "has the id -1",
        ModelFileError,
    ),
    "added tokens that are texts": (
        lambda t: t.update(added_tokens=["x"]),
        "added_tokens holds 'x'",
        ModelFileError,
    ),
    "a post-processor that is a text": (
        lambda t: t.update(post_processor="x"),
        "post_processor is 'x', expected an object",
        ModelFileError,
    ),
}


@pytest.mark.parametrize("what", list(CHANGES))
def test_a_tokenizer_json_that_is_damaged_or_unknown_says_why(what: str, tmp_path: Path, convert: Convert) -> None:
    change, message, kind = CHANGES[what]
    changed_bpe(tmp_path, change)
    with pytest.raises(kind, match=message):
        convert(tmp_path, "--outfile", tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_pre_names_the_splitter_of_an_unknown_tokenizer(tmp_path: Path, convert: Convert) -> None:
    changed_bpe(tmp_path, CHANGES["another splitter"][0])
    assert convert(tmp_path, "--outfile", tmp_path / "out.gguf", "--pre", "smollm") == 0
    assert fields(GGUFReader(tmp_path / "out.gguf"))["tokenizer.ggml.pre"] == "smollm"


def test_negative_special_ids_mean_none(tmp_path: Path, convert: Convert) -> None:
    write_hf(tmp_path, Spec(config={"pad_token_id": -1}))
    convert(tmp_path, "--outfile", tmp_path / "out.gguf")
    assert "tokenizer.ggml.padding_token_id" not in fields(GGUFReader(tmp_path / "out.gguf"))


def test_the_chat_end_of_tokenizer_config_wins_over_config_json(tmp_path: Path, convert: Convert) -> None:
    write_hf(tmp_path, Spec(n_vocab=401), tokenizer="")
    (tmp_path / "tokenizer.model").write_bytes(spm_model(400))
    decoder = {"400": {"content": "<|im_end|>", "special": True}}
    write_json(tmp_path / "tokenizer_config.json", {"eos_token": "<|im_end|>", "added_tokens_decoder": decoder})
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    convert(tmp_path, "--outfile", tmp_path / "out.gguf")
    kv = fields(GGUFReader(tmp_path / "out.gguf"))
    assert kv["tokenizer.ggml.eos_token_id"] == 400
    assert kv["tokenizer.ggml.token_type"][400] == 3
    assert kv["tokenizer.chat_template"] == "{{ messages }}"


def test_vocab_only_writes_a_file_that_llama_cpp_opens_as_a_vocabulary(tmp_path: Path, convert: Convert) -> None:
    write_hf(tmp_path, Spec(n_vocab=420), tokenizer="smollm")
    (tmp_path / "model.safetensors").unlink()
    assert convert(tmp_path, "--outfile", tmp_path / "vocab.gguf", "--vocab-only") == 0
    reader = GGUFReader(tmp_path / "vocab.gguf")
    assert reader.tensors == []
    assert llama_cpp_ids(tmp_path / "vocab.gguf", "<|im_start|>") == [416]
