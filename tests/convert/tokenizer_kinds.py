"""Tokenizers of many kinds, built by the tokenizers and sentencepiece packages, tiny and quick.

Owns the list of kinds and what a conversion of each must come to: the same token ids, or a refusal that names why.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from convert.test_vocab import spm_as_json
from convert.tiny_checkpoints import PRE_TOKENIZERS, added_token, bpe_json, corpus, spm_model, trained_bpe, write_json

Change = Callable[[dict[str, Any]], Any]
N_BPE, N_SPM = 420, 400


@dataclass(frozen=True)
class Kind:
    """One tokenizer.

    refused: what the refusal must say; "" where the ids must be equal.
    noted: what a note must say, of a difference that GGUF cannot say and that only texts in ``skips`` have.
    """

    name: str
    write: Callable[[Path], int]  # writes the files, returns the size of the vocabulary
    refused: str = ""
    noted: str = ""
    skips: tuple[str, ...] = field(default=())  # "space first", "special inside"


def _flags(i: int, text: str, **flags: Any) -> dict[str, Any]:
    return {**added_token(i, text), **flags}


def byte_level(name: str, change: Optional[Change] = None, pre: str = "gpt-2", **expected: Any) -> Kind:
    """A byte-level tokenizer.json with two special tokens, changed."""

    def write(folder: Path) -> int:
        texts, merges = trained_bpe(N_BPE)
        tokens = [added_token(N_BPE, "<s>"), added_token(N_BPE + 1, "</s>")]
        tokenizer = bpe_json(texts, merges, tokens, pre)
        tokenizer["normalizer"] = None
        if change is not None:
            change(tokenizer)
        write_json(folder / "tokenizer.json", tokenizer)
        write_json(folder / "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>"})
        return N_BPE + 10

    return Kind(f"byte-level {name}", write, **expected)


def spaced(name: str, change: Optional[Change] = None, **expected: Any) -> Kind:
    """A tokenizer.json of the SentencePiece kind, changed."""

    def write(folder: Path) -> int:
        tokenizer = spm_as_json(N_SPM)
        tokenizer["post_processor"] = None
        if change is not None:
            change(tokenizer)
        write_json(folder / "tokenizer.json", tokenizer)
        names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        write_json(folder / "tokenizer_config.json", names)
        return N_SPM + 10

    return Kind(f"spm json {name}", write, **expected)


def sentencepiece_file(name: str, options: Optional[dict[str, Any]] = None, **expected: Any) -> Kind:
    """A tokenizer.model alone, trained with options."""

    def write(folder: Path) -> int:
        import sentencepiece

        if not options:
            data = spm_model(N_SPM)
        else:
            out = io.BytesIO()
            settings: dict[str, Any] = {
                "model_type": "bpe", "vocab_size": N_SPM, "byte_fallback": True, "split_digits": True,
                "normalization_rule_name": "identity", "remove_extra_whitespaces": False, "character_coverage": 0.9995,
                "allow_whitespace_only_pieces": True, "hard_vocab_limit": False, "num_threads": 1, "minloglevel": 2,
            }  # fmt: skip
            lines = corpus().splitlines()[:900]
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines), model_writer=out, **{**settings, **options}
            )
            data = out.getvalue()
        (folder / "tokenizer.model").write_bytes(data)
        return sentencepiece.SentencePieceProcessor(model_proto=data).vocab_size() + 7

    return Kind(f"sentencepiece {name}", write, **expected)


def trained(name: str, **expected: Any) -> Kind:
    """BPE that the tokenizers package itself has trained with byte fallback: not every pair has a merge."""

    def write(folder: Path) -> int:
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=True)
        special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
        trainer = trainers.BpeTrainer(vocab_size=N_SPM + 300, special_tokens=special, show_progress=False)
        tokenizer.train_from_iterator(corpus().splitlines()[:900], trainer)
        data = json.loads(tokenizer.to_str())
        data["added_tokens"] = data["added_tokens"][:3]
        write_json(folder / "tokenizer.json", data)
        return int(tokenizer.get_vocab_size()) + 2

    return Kind(name, write, **expected)


def other_model(name: str, **expected: Any) -> Kind:
    """A tokenizer.json whose model is no BPE."""

    def write(folder: Path) -> int:
        from tokenizers import Tokenizer, models

        made = {
            "Unigram": models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0, False),
            "WordPiece": models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"),
            "WordLevel": models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"),
        }[name]
        (folder / "tokenizer.json").write_text(Tokenizer(made).to_str())
        return 20

    return Kind(name, write, **expected)


# ---- changes ----


def normalizer(*steps: dict[str, Any]) -> Change:
    return lambda t: t.update(
        normalizer={"type": "Sequence", "normalizers": list(steps)} if len(steps) > 1 else steps[0]
    )


def pre_tokenizer(*steps: dict[str, Any]) -> Change:
    one = steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": list(steps)}
    return lambda t: t.update(pre_tokenizer=one)


def model(**settings: Any) -> Change:
    return lambda t: t["model"].update(settings)


def added(text: str, **flags: Any) -> Change:
    def change(t: dict[str, Any]) -> None:
        i = max([*t["model"]["vocab"].values(), *(entry["id"] for entry in t["added_tokens"])]) + 1
        t["added_tokens"].append(_flags(i, text, **flags))

    return change


def template(*single: str) -> Change:
    """A post-processor; "A" is the text."""

    def change(t: dict[str, Any]) -> None:
        ids = {entry["content"]: entry["id"] for entry in t["added_tokens"]}
        parts = [
            {"Sequence": {"id": "A", "type_id": 0}} if part == "A" else {"SpecialToken": {"id": part, "type_id": 0}}
            for part in single
        ]
        specials = {part: {"id": part, "ids": [ids[part]], "tokens": [part]} for part in single if part != "A"}
        t["post_processor"] = {"type": "TemplateProcessing", "single": parts, "pair": parts, "special_tokens": specials}

    return change


def both(*changes: Change) -> Change:
    def change(t: dict[str, Any]) -> None:
        for each in changes:
            each(t)

    return change


def two_merges(apart: bool) -> Change:
    """A piece that two merges make, which stand together or not."""

    def change(t: dict[str, Any]) -> None:
        vocab, merges = t["model"]["vocab"], t["model"]["merges"]
        vocab.update({piece: N_SPM + i for i, piece in enumerate(["xq", "qz", "xqz"])})
        merges += ["x q", "q z", "xq z"]
        merges.insert(0 if apart else len(merges), "x qz")

    return change


def spaces_last(t: dict[str, Any]) -> None:
    """The merge of two spaces comes last, as in the tokenizer.json of Llama 1 and 2."""
    merges = t["model"]["merges"]
    merges.remove("\u2581 \u2581")
    merges.append("\u2581 \u2581")


def metaspace(scheme: str, split: bool) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": split}


PREPEND = {"type": "Prepend", "prepend": "\u2581"}
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
NO_NORMALIZER: Change = lambda t: t.update(normalizer=None)  # noqa: E731
SPACE_NOTE = "puts no space before a text that begins with one"

KINDS = [
    *(byte_level(pre, pre=pre) for pre in PRE_TOKENIZERS),
    byte_level("llama-bpe without whole words", model(ignore_merges=False), "llama-bpe"),
    byte_level("whole words in gpt-2", model(ignore_merges=True), refused="has ignore_merges"),
    byte_level("no split", pre_tokenizer({**BYTE_LEVEL, "use_regex": False}), refused="no known name"),
    byte_level("a space in front", pre_tokenizer({**BYTE_LEVEL, "add_prefix_space": True}), refused="no known name"),
    byte_level("whitespace", pre_tokenizer({"type": "Whitespace"}, BYTE_LEVEL), refused="no known name"),
    byte_level("digits together", pre_tokenizer({**DIGITS, "individual_digits": False}, BYTE_LEVEL), refused="known"),
    byte_level("nested sequence", pre_tokenizer({"type": "Sequence", "pretokenizers": [DIGITS]}, BYTE_LEVEL)),
    byte_level("NFC", normalizer({"type": "NFC"}), noted="Unicode's form NFC"),
    byte_level("NFKC", normalizer({"type": "NFKC"}), refused="normalizer has a step 'NFKC'"),
    byte_level("NFD in a sequence", normalizer({"type": "NFC"}, {"type": "NFD"}), refused="step 'NFD'"),
    byte_level("lower case", normalizer({"type": "Lowercase"}), refused="normalizer has a step 'Lowercase'"),
    byte_level("strip", normalizer({"type": "Strip", "strip_left": True, "strip_right": True}), refused="step 'Strip'"),
    byte_level("replace", normalizer(REPLACE), refused="normalizer has a step 'Replace'"),
    byte_level("special token", added("<|im_start|>")),
    byte_level("user token", added("[user token]", special=False)),
    byte_level("user token, normalized", added("[user token]", special=False, normalized=True)),
    byte_level("user token of spaces", added("    ", special=False)),
    byte_level("user token with a U+2581", added("\u2581x", special=False)),
    byte_level("lstrip", added("<mask>", lstrip=True), refused="'<mask>' has lstrip"),
    byte_level("rstrip", added("<mask>", rstrip=True), refused="'<mask>' has rstrip"),
    byte_level("single word", added("word", single_word=True), refused="'word' has single_word"),
    byte_level("BOS", template("<s>", "A")),
    byte_level("EOS", template("A", "</s>")),
    byte_level("BOS and EOS", template("<s>", "A", "</s>")),
    byte_level("another token first", both(added("<|begin|>"), template("<|begin|>", "A"))),
    byte_level("another token last", both(added("<|sep|>"), template("A", "<|sep|>")), refused="EOS is another token"),
    byte_level("two tokens first", template("<s>", "</s>", "A"), refused="one token on each side"),
    byte_level("post-processor of offsets", lambda t: t.update(post_processor={**BYTE_LEVEL, "type": "ByteLevel"})),
    byte_level("post-processor of Roberta", lambda t: t.update(post_processor={
        "type": "RobertaProcessing", "sep": ["</s>", N_BPE + 1], "cls": ["<s>", N_BPE], "trim_offsets": True,
        "add_prefix_space": False}), refused="step 'RobertaProcessing'"),
    byte_level("prefix of inner pieces", model(continuing_subword_prefix="##"), refused="continuing_subword_prefix"),
    byte_level("suffix of words", model(end_of_word_suffix="</w>"), refused="end_of_word_suffix"),
    byte_level("dropout", model(dropout=0.1), refused="dropout"),
    spaced("Prepend and Replace"),
    spaced("Replace alone", normalizer(REPLACE)),
    spaced("BOS", template("<s>", "A")),
    spaced("EOS", template("A", "</s>")),
    spaced("Metaspace first", both(NO_NORMALIZER, pre_tokenizer(metaspace("first", False))), noted=SPACE_NOTE,
           skips=("space first", "special inside")),
    spaced("Metaspace always", both(NO_NORMALIZER, pre_tokenizer(metaspace("always", False))), noted=SPACE_NOTE,
           skips=("space first", "special inside")),
    spaced("Metaspace never", both(NO_NORMALIZER, pre_tokenizer(metaspace("never", False)))),
    spaced("Metaspace that splits", both(NO_NORMALIZER, pre_tokenizer(metaspace("never", True))),
           refused="reaches over"),
    spaced("Metaspace in a sequence", both(NO_NORMALIZER, lambda t: t.update(pre_tokenizer={
        "type": "Sequence", "pretokenizers": [metaspace("never", False)]}))),
    spaced("Metaspace and Digits", both(NO_NORMALIZER, pre_tokenizer(metaspace("first", False), DIGITS)),
           refused="steps Metaspace, Digits"),
    spaced("Metaspace of another letter", both(NO_NORMALIZER, pre_tokenizer({**metaspace("never", False),
           "replacement": "_"})), refused="Metaspace .* is none that is known"),
    spaced("spaces as they are", NO_NORMALIZER, refused="makes a space"),
    spaced("NFKC", normalizer({"type": "NFKC"}, PREPEND, REPLACE), refused="normalizer has a step 'NFKC'"),
    spaced("extra spaces", normalizer({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}, PREPEND,
           REPLACE), refused="normalizer has a step 'Replace'"),
    spaced("special token", added("<|im_start|>")),
    spaced("user token", added("[user]", special=False)),
    spaced("user token, normalized", added("[user]", special=False, normalized=True),
           refused="'\\[user\\]' is normalized"),
    spaced("rstrip", added("<|end|>", rstrip=True), refused="'<\\|end\\|>' has rstrip"),
    spaced("a merge left out", lambda t: t["model"]["merges"].pop(40), refused="no merge makes"),
    spaced("spaces merged last", spaces_last),
    spaced("two merges of one piece", two_merges(apart=False)),
    spaced("two merges of one piece, apart", two_merges(apart=True), refused="do not stand together"),
    trained("tokenizers' own byte fallback", refused="no merge makes"),
    *(other_model(name, refused=f"model is '{name}'") for name in ("Unigram", "WordPiece", "WordLevel")),
    sentencepiece_file("as Llama 2's"),
    sentencepiece_file("no dummy prefix", {"add_dummy_prefix": False}),
    sentencepiece_file("digits together", {"split_digits": False}),
    sentencepiece_file("control symbols", {"control_symbols": ["<pad>", "<sep>"]}),
    sentencepiece_file("no BOS", {"bos_id": -1}),
    sentencepiece_file("no EOS", {"eos_id": -1}),
    sentencepiece_file("a pad token", {"pad_id": 3}),
    sentencepiece_file("user-defined symbols", {"user_defined_symbols": ["[user]"]}, refused="user_defined_symbols"),
    sentencepiece_file("user-defined symbols, no dummy prefix",
                       {"user_defined_symbols": ["[user]", "[user token]"], "add_dummy_prefix": False}),
    sentencepiece_file("unigram", {"model_type": "unigram"}, refused="of the unigram kind"),
    sentencepiece_file("words", {"model_type": "word", "byte_fallback": False}, refused="of the word kind"),
    sentencepiece_file("letters", {"model_type": "char", "byte_fallback": False}, refused="of the char kind"),
    sentencepiece_file("NFKC", {"normalization_rule_name": "nmt_nfkc"}, refused="normalizer .nmt_nfkc. changes"),
    sentencepiece_file("extra spaces", {"remove_extra_whitespaces": True}, refused="remove_extra_whitespaces"),
    sentencepiece_file("suffix", {"treat_whitespace_as_suffix": True}, refused="treat_whitespace_as_suffix"),
    sentencepiece_file("no byte fallback", {"byte_fallback": False}, refused="no token '<0x00>'"),
]  # fmt: skip

TEXTS = [
    *("x" + n * " " + "y" for n in range(2, 20, 3)),
    "xqz qz xq", "", "a", "hello",
    "Hello, World!", "The parser prints help.", "x = 1", "12345", "3.14159e-10", "0x1F + 077",
    "don't we'll they've I'm you'd he's", "DON'T WE'LL", "snake_case camelCase kebab-case", "self.args[0]",
    "def f(x):\n    return x\n", "if a:\n\tb\n\n\nelse:\n\tc", "line\r\nline\r\n", "tab\tand  two   three    spaces",
    "trailing space ", "trailing newline\n", " leading space", "  two leading", "\n", " ", "   ", "\t",
    "caf\u00e9 na\u00efve \u00fcber", "\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002",
    "\u3053\u3093\u306b\u3061\u306f", "\U0001f680\U0001f680 \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u20ac 5 \u2013 \u201cquoted\u201d",
    "http://example.org/?a=b&c=%20", "a" * 100, "ab " * 40, "!!!???...---===", "\\n is no newline", "(((())))",
    "[user token] here", "before[user token]", "argument parser usage: [-h] [--foo FOO] bar",
    "<s>", "text</s>", "a <s>b", "<|im_start|>user\nhi", "x[user]y [user] z",
]  # fmt: skip
