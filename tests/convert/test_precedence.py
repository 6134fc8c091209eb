"""Which of several files counts: as transformers 5 loads the folder."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from convert.checkpoint_files import write_safetensors
from convert.gguf_to_hf import fields
from convert.test_vocab import spm_as_json
from convert.tiny_checkpoints import Spec, added_token, hf_weights, spm_model, write_hf, write_json
from gguf import GGUFReader

from lazygguf.errors import ModelFileError, UnsupportedModelError
from lazygguf.text.tokenizer import Tokenizer

Convert = Callable[..., int]
ROWS = 405


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    """A folder without a tokenizer and with free rows."""
    return write_hf(tmp_path / "model", Spec(n_vocab=ROWS), tokenizer="")


def set_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    write_json(path, {**json.loads(path.read_text()), **changes})


def template(*parts: str) -> dict[str, Any]:
    """A post-processor; "A" is the text."""
    single = [
        {"Sequence": {"id": "A", "type_id": 0}} if part == "A" else {"SpecialToken": {"id": part, "type_id": 0}}
        for part in parts
    ]
    ids = {"<s>": 1, "</s>": 2}
    special = {part: {"id": part, "ids": [ids[part]], "tokens": [part]} for part in parts if part != "A"}
    return {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special}


def write_fast(folder: Path, post_processor: Any = None, added: tuple[str, ...] = (), **config: Any) -> None:
    """tokenizer.json and tokenizer_config.json in the form of transformers 5."""
    tokenizer = spm_as_json(400)
    tokenizer["post_processor"] = post_processor
    tokenizer["added_tokens"] += [added_token(400 + i, text) for i, text in enumerate(added)]
    write_json(folder / "tokenizer.json", tokenizer)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "LlamaTokenizer"}
    write_json(folder / "tokenizer_config.json", {**names, **config})


def converted(convert: Convert, folder: Path) -> dict[str, Any]:
    out = folder.parent / "out.gguf"
    convert(folder, "--outfile", out, "--vocab-only", "--force")
    kv: dict[str, Any] = fields(GGUFReader(out))
    return {key.replace("tokenizer.ggml.", ""): value for key, value in kv.items()}


def ids_of(folder: Path, text: bytes, **options: bool) -> list[int]:
    tokenizer = Tokenizer(str(folder.parent / "out.gguf"))
    ids = tokenizer.tokenize(text, **options)
    tokenizer.close()
    return ids


def test_added_tokens_of_tokenizer_json_count_beside_an_old_tokenizer_model(folder: Path, convert: Convert) -> None:
    (folder / "tokenizer.model").write_bytes(spm_model(400))
    write_fast(folder, template("<s>", "A"), ("<|im_start|>", "<|im_end|>"), eos_token="<|im_end|>")
    set_config(folder, eos_token_id=401)
    kv = converted(convert, folder)
    assert kv["tokens"][400:403] == ["<|im_start|>", "<|im_end|>", "[PAD402]"]
    assert kv["token_type"][400:403] == [3, 3, 5]
    assert kv["eos_token_id"] == 401
    assert ids_of(folder, b"<|im_start|>the<|im_end|>", special=True)[1] == 400


def test_tokenizer_json_without_merges_takes_the_scores_of_tokenizer_model(
    folder: Path, convert: Convert, capsys: pytest.CaptureFixture[str]
) -> None:
    write_fast(folder, added=("<|im_end|>",))
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["merges"] = []
    write_json(path, tokenizer)
    with pytest.raises(ModelFileError, match=r"no merges.*and no tokenizer\.model beside"):
        converted(convert, folder)
    (folder / "tokenizer.model").write_bytes(spm_model(400))
    kv = converted(convert, folder)
    assert "has no merges: the scores are those of tokenizer.model" in capsys.readouterr().err
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=spm_model(400))
    assert kv["scores"][300] == processor.GetScore(300)
    assert ids_of(folder, b"def parse(args)", add_bos=False) == processor.EncodeAsIds("def parse(args)")
    tokenizer["model"]["vocab"] = {("x" if i == 390 else text): i for text, i in tokenizer["model"]["vocab"].items()}
    write_json(path, tokenizer)
    with pytest.raises(ModelFileError, match=r"which tokenizer\.model does not have there"):
        converted(convert, folder)


@pytest.mark.parametrize(
    ("parts", "bos", "eos"),
    [(("A",), False, False), (("<s>", "A"), True, False), (("A", "</s>"), False, True), (None, False, False)],
)
def test_the_post_processor_alone_says_what_is_added(
    parts: Optional[tuple[str, ...]], bos: bool, eos: bool, folder: Path, convert: Convert
) -> None:
    for is_said in (False, True):
        post_processor = None if parts is None else template(*parts)
        if is_said:
            write_fast(folder, post_processor, add_bos_token=not bos, add_eos_token=not eos)
        else:
            write_fast(folder, post_processor)
        kv = converted(convert, folder)
        assert (kv["add_bos_token"], kv.get("add_eos_token", False)) == (bos, eos)
        ids = ids_of(folder, b"text")
        assert (ids[0] == 1, ids[-1] == 2) == (bos, eos)


def test_flags_that_the_post_processor_overrules_are_noted(
    folder: Path, convert: Convert, capsys: pytest.CaptureFixture[str]
) -> None:
    write_fast(folder, template("A"), add_bos_token=True)
    converted(convert, folder)
    assert "add_bos_token is true, the post-processor of tokenizer.json adds none" in capsys.readouterr().err


def test_a_template_that_gguf_cannot_say_is_refused(folder: Path, convert: Convert) -> None:
    write_fast(folder, template("<s>", "<s>", "A"))
    with pytest.raises(UnsupportedModelError, match="one token on each side"):
        converted(convert, folder)


@pytest.mark.parametrize(
    ("said", "generation", "eos", "others"),
    [
        (2, None, 2, {}),
        ([2], None, 2, {}),
        ([400, 2, 401], None, 400, {"eot": 2, "eom": 401}),
        ([2, 402], None, 2, {"eom": 402}),  # its text says what it is
        (None, 2, 2, {}),
        (None, [401, 2], 401, {"eot": 2}),
        (2, [2, 400], 2, {"eot": 400}),
        ([], None, 403, {}),
        (None, None, 403, {}),
        (-1, None, 403, {}),
        (True, None, 403, {}),
    ],
)
def test_eos_may_be_a_number_a_list_null_or_absent(
    said: Any, generation: Any, eos: int, others: dict[str, int], folder: Path, convert: Convert
) -> None:
    """403 is padding: a token that no text has ends no answer, llama.cpp's own default could be a word."""
    write_fast(folder, added=("<a>", "<b>", "<|eom_id|>"), eos_token=None)
    set_config(folder, eos_token_id=said)
    if generation is not None:
        write_json(folder / "generation_config.json", {"eos_token_id": generation})
    kv = converted(convert, folder)
    assert kv["eos_token_id"] == eos
    assert {kind: kv[f"{kind}_token_id"] for kind in ("eot", "eom") if f"{kind}_token_id" in kv} == others


def test_a_stand_in_for_eos_is_noted(folder: Path, convert: Convert, capsys: pytest.CaptureFixture[str]) -> None:
    write_fast(folder, eos_token=None)
    set_config(folder, eos_token_id=None)
    converted(convert, folder)
    assert "no file names an EOS token: 400 ('[PAD400]') stands for it" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize(
    ("said", "shown"), [({"id": 2}, "{'id': 2}"), ("2", "'2'"), (2.0, "2.0"), ([2, [3]], "[2, [3]]")]
)
def test_an_eos_that_is_no_id_is_noted(
    name: str, said: Any, shown: str, folder: Path, convert: Convert, capsys: pytest.CaptureFixture[str]
) -> None:
    write_fast(folder)
    set_config(folder, eos_token_id=None)
    if name == "config.json":
        set_config(folder, eos_token_id=said)
    else:
        write_json(folder / name, {"eos_token_id": said})
    converted(convert, folder)
    note = f"note: {name}: eos_token_id is {shown}, expected a token id: left out"
    assert capsys.readouterr().err.count(note) == 1


def test_ids_past_the_embedding_are_noted(folder: Path, convert: Convert, capsys: pytest.CaptureFixture[str]) -> None:
    write_fast(folder)
    set_config(folder, pad_token_id=ROWS)
    assert "padding_token_id" not in converted(convert, folder)
    assert f"pad_token_id is {ROWS}, the embedding has {ROWS} rows: left out" in capsys.readouterr().err


def test_a_sentencepiece_model_without_bos_adds_none(folder: Path, convert: Convert) -> None:
    import sentencepiece

    out = io.BytesIO()
    lines = ["the quick brown fox jumps over the lazy dog"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, vocab_size=330, model_type="bpe", byte_fallback=True,
        bos_id=-1, normalization_rule_name="identity", remove_extra_whitespaces=False, hard_vocab_limit=False,
        num_threads=1, minloglevel=2,
    )  # fmt: skip
    (folder / "tokenizer.model").write_bytes(out.getvalue())
    set_config(folder, bos_token_id=None)
    kv = converted(convert, folder)
    assert kv["add_bos_token"] is False
    assert "bos_token_id" not in kv
    processor = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    assert ids_of(folder, b"the fox") == processor.EncodeAsIds("the fox")
    write_json(folder / "tokenizer_config.json", {"add_bos_token": True})
    with pytest.raises(ModelFileError, match="add_bos_token is true, but no file names a BOS token"):
        converted(convert, folder)


def test_a_sentencepiece_model_alone_adds_bos_unless_the_folder_says_no(folder: Path, convert: Convert) -> None:
    (folder / "tokenizer.model").write_bytes(spm_model(400))
    assert converted(convert, folder)["add_bos_token"] is True
    write_json(folder / "tokenizer_config.json", {"add_bos_token": False})
    assert converted(convert, folder)["add_bos_token"] is False


OLD, NEW = "old {{ messages }}", "new {{ messages }}"


def test_chat_template_jinja_wins_over_tokenizer_config(
    folder: Path, convert: Convert, capsys: pytest.CaptureFixture[str]
) -> None:
    write_fast(folder, chat_template=OLD)
    assert converted(convert, folder)["tokenizer.chat_template"] == OLD
    (folder / "chat_template.jinja").write_text(NEW)
    capsys.readouterr()
    assert converted(convert, folder)["tokenizer.chat_template"] == NEW
    assert "chat template of tokenizer_config.json is left out: chat_template.jinja takes" in capsys.readouterr().err
    write_json(folder / "chat_template.json", {"chat_template": "oldest"})
    assert converted(convert, folder)["tokenizer.chat_template"] == NEW


def test_additional_templates_are_named_templates(folder: Path, convert: Convert) -> None:
    write_fast(folder)
    (folder / "chat_template.jinja").write_text(NEW)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("tools")
    (folder / "additional_chat_templates" / "notes.txt").write_text("no template")
    kv = converted(convert, folder)
    assert kv["tokenizer.chat_template"] == NEW
    assert kv["tokenizer.chat_template.tool_use"] == "tools"
    assert kv["tokenizer.chat_templates"] == ["tool_use"]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([1], "chat_template holds 1, expected a name and a template"),
        ([{"name": "default", "template": 5}], "chat_template holds {'name': 'default', 'template': 5}"),
        ([{"name": "default"}], "chat_template holds"),
        ({"default": None}, "chat_template holds"),
        (7, "chat_template is 7, expected a text"),
        ([{"name": "a b", "template": ""}, {"name": "a-b", "template": ""}], "'a-b' and 'a b' cannot be a key"),
        ([{"name": "", "template": "x"}], "cannot be a key"),
    ],
)
def test_a_template_that_is_none_names_file_and_key(said: Any, message: str, folder: Path, convert: Convert) -> None:
    write_fast(folder, chat_template=said)
    with pytest.raises(ModelFileError, match=r"tokenizer_config\.json: .*" + message.replace("{", r"\{")):
        converted(convert, folder)


def test_a_list_of_templates_is_kept(folder: Path, convert: Convert) -> None:
    write_fast(folder, chat_template=[{"name": "default", "template": NEW}, {"name": "rag", "template": "r"}])
    kv = converted(convert, folder)
    assert (kv["tokenizer.chat_template"], kv["tokenizer.chat_template.rag"]) == (NEW, "r")


def test_a_whole_weight_file_wins_over_a_stale_index_and_old_parts(tmp_path: Path, convert: Convert) -> None:
    spec = Spec()
    folder = write_hf(tmp_path / "model", spec, n_shards=2)
    convert(folder, "--outfile", tmp_path / "parts.gguf", "--name", "same")
    write_safetensors(folder / "model.safetensors", hf_weights(Spec(seed=1)), "F32")
    convert(folder, "--outfile", tmp_path / "whole.gguf", "--name", "same")
    other = write_hf(tmp_path / "other", Spec(seed=1))
    convert(other, "--outfile", tmp_path / "other.gguf", "--name", "same")
    assert (tmp_path / "whole.gguf").read_bytes() == (tmp_path / "other.gguf").read_bytes()
    assert (tmp_path / "whole.gguf").read_bytes() != (tmp_path / "parts.gguf").read_bytes()


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json", "chat_template.jinja"])
def test_a_byte_order_mark_changes_nothing(name: str, folder: Path, convert: Convert) -> None:
    write_fast(folder)
    (folder / "chat_template.jinja").write_text(NEW)
    expected = converted(convert, folder)
    path = folder / name
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert converted(convert, folder) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_theta": 1e308}, r"rope_theta is 1e\+308, expected a number in \[1, 1e\+12\]"),
        ({"rope_theta": 10**400}, "rope_theta is 10000.*expected a number in"),
        ({"rms_norm_eps": 1e300}, r"rms_norm_eps is 1e\+300"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 1e308}}, r"factor is 1e\+308"),
        ({"hidden_size": 10**400}, "hidden_size is 1000.*expected an integer"),
        ({"vocab_size": 2**31 - 1}, "vocab_size is 2147483647, expected at most 16777216"),
        ({"max_position_embeddings": 2**40}, "max_position_embeddings is 1099511627776, expected an integer"),
    ],
)
def test_a_number_out_of_range_names_file_and_key(
    changes: dict[str, Any], message: str, folder: Path, convert: Convert
) -> None:
    write_fast(folder)
    set_config(folder, **changes)
    with pytest.raises(ModelFileError, match=r"config\.json: " + message) as caught:
        converted(convert, folder)
    assert len(str(caught.value)) < 400
