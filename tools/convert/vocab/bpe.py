"""Byte-level BPE tokenizers of a tokenizer.json.

Owns the vocabulary with its added tokens, and how the text is split before merging: ``tokenizer.ggml.pre``
names one of llama.cpp's splitters, and a splitter counts as the right one only when tokenizer.json spells
exactly its rules.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

from gguf import TokenType

from lazygguf.errors import ModelFileError, UnsupportedModelError

from ..json_file import shown
from ..plan import Original, Vocab
from .added import AddedToken, added_of_folder, added_of_tokenizer, left_out
from .chat_template import read_chat_template
from .special import looks_special, name_an_end, padding_names, read_specials, refuse_duplicates, vocab_table
from .tokenizer_json import flat_steps, load_encode, note_nfc, read_merges, refuse_model_settings

_TAIL = r"[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_SPLIT = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|" + _TAIL % r"\p{N}{1,3}"
QWEN2_SPLIT = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|" + _TAIL % r"\p{N}"
TEKKEN_SPLIT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
N_LLAMA3_BASE = 128000  # tokens of Llama 3 without the special ones
WHOLE_WORDS = ("llama-bpe", "tekken")  # splitters that take a word as one token where the vocabulary has it


def read_bpe(path: Path, tokenizer: dict[str, Any], n_vocab: int, pre: Optional[str], notes: list[str]) -> Vocab:
    """The tokenizer of a byte-level tokenizer.json.

    Args:
        path: The tokenizer.json.
        tokenizer: What is in it.
        n_vocab: Rows of the embedding.
        pre: The splitter's name; None: found from the file.
        notes: Gets a line for what was left out.
    """
    model = tokenizer.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE":
        kind = model.get("type") if isinstance(model, dict) else model
        raise UnsupportedModelError(
            f"{path}: the tokenizer's model is {shown(kind)}; BPE and SentencePiece are converted"
        )
    refuse_model_settings(path, model)
    texts = _base_tokens(path, vocab_table(path, model.get("vocab")), n_vocab)
    types: list[int] = [TokenType.NORMAL if i in texts else TokenType.UNUSED for i in range(n_vocab)]
    _put_added(path, tokenizer, texts, types, notes)
    encoded = {i: text.encode() for i, text in texts.items()}
    names = padding_names(n_vocab, set(encoded.values()))
    tokens = [encoded.get(i, names[i]) for i in range(n_vocab)]
    refuse_duplicates(path, tokens)
    merges = _merges(path, read_merges(path, model), set(tokens))
    pre = _pre(path, tokenizer, pre, notes)
    specials = read_specials(path.parent, tokens, tokenizer, notes)
    ids = dict(specials.ids)
    name_an_end(ids, tokens, types, notes)
    encode = load_encode(path, notes)
    original = Original(path, encode, with_control=True) if encode is not None else None
    return Vocab("gpt2", pre, tokens, types, None, merges, ids, specials.add, None,
                 read_chat_template(path.parent, notes), original)  # fmt: skip


def _base_tokens(path: Path, vocab: dict[str, int], n_vocab: int) -> dict[int, str]:
    largest = max(vocab.values(), default=-1)
    if largest >= n_vocab:
        raise ModelFileError(
            f"{path}: the vocabulary reaches id {largest}, the embedding has {n_vocab} rows; they are not of one model"
        )
    texts = {i: text for text, i in vocab.items()}
    if len(texts) != len(vocab):
        raise ModelFileError(f"{path}: {len(vocab) - len(texts)} token ids are given twice")
    return texts


def _put_added(
    path: Path, tokenizer: dict[str, Any], texts: dict[int, str], types: list[int], notes: list[str]
) -> None:
    def put(token: AddedToken) -> None:
        control = token.special or looks_special(token.text)
        texts[token.id] = token.text
        types[token.id] = TokenType.CONTROL if control else TokenType.USER_DEFINED

    for token in added_of_tokenizer(path, tokenizer):
        if token.id < len(types):
            put(token)
        else:
            notes.append(left_out(token, len(types)))
    taken = set(texts.values())
    for token in added_of_folder(path.parent):  # files of before transformers 5; tokenizer.json has most of them
        if token.text not in taken and token.id < len(types) and token.id not in texts:
            put(token)
        elif token.text not in taken:
            notes.append(f"the added token {shown(token.text)} ({token.id}) is not in {path.name}: left out")


def _merges(path: Path, pairs: list[tuple[str, str]], tokens: set[bytes]) -> list[str]:
    if not pairs:
        raise ModelFileError(f"{path}: the tokenizer has no merges, so it cannot split words")
    for rank, (left, right) in enumerate(pairs):
        if (left + right).encode() not in tokens or " " in left + right:
            raise ModelFileError(
                f"{path}: merge {rank} is {shown(f'{left} {right}')}, which makes no token of the vocabulary"
            )
    return [f"{left} {right}" for left, right in pairs]


def _pre(path: Path, tokenizer: dict[str, Any], pre: Optional[str], notes: list[str]) -> str:
    """The splitter's name, given or found; what it does not do is refused in both cases."""
    for step in note_nfc(flat_steps(path, tokenizer, "normalizer"), notes):
        raise UnsupportedModelError(
            f"{path}: the normalizer has a step {shown(step['type'])}, which changes text before it is split; a "
            "GGUF file cannot say that"
        )
    name = pre or find_pre(path, tokenizer)
    if tokenizer["model"].get("ignore_merges") and name not in WHOLE_WORDS:
        raise UnsupportedModelError(
            f"{path}: the model has ignore_merges, which llama.cpp does with the splitters {' and '.join(WHOLE_WORDS)} "
            f"only, and this one is {name}"
        )
    return name


def find_pre(path: Path, tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name for how this tokenizer splits text.

    Raises:
        UnsupportedModelError: The rules are none that are known; the message says how to name the splitter.
    """
    rules = _split_rules(flat_steps(path, tokenizer, "pre_tokenizer"))
    model = tokenizer["model"]
    gpt2 = ("ByteLevel", False, True)
    raw = ("ByteLevel", False, False)
    name: Optional[str] = None
    if rules == [("Split", LLAMA3_SPLIT), raw]:
        whole_words = bool(model.get("ignore_merges")) or len(model["vocab"]) == N_LLAMA3_BASE
        name = "llama-bpe" if whole_words else "smaug-bpe"
    elif rules == [("Split", QWEN2_SPLIT), raw]:
        name = "qwen2"
    elif rules == [("Split", TEKKEN_SPLIT), raw] and model.get("ignore_merges"):
        name = "tekken"
    elif rules == [("Digits", True), gpt2]:
        name = "smollm"
    elif rules == [gpt2]:
        name = "gpt-2"
    if name is None:
        shown = json.dumps(tokenizer.get("pre_tokenizer"), ensure_ascii=True)
        raise UnsupportedModelError(
            f"{path}: the tokenizer splits text in a way that has no known name; if you know llama.cpp's, "
            f"give --pre NAME (tokenizer.ggml.pre). Its rules: {shown[:400]}"
        )
    return name


def _split_rules(steps: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The splitting steps, without what does not change the split."""
    rules: list[tuple[Any, ...]] = []
    for step in steps:
        kind, pattern = step["type"], step.get("pattern")
        if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
            rules.append(("Split", pattern.get("Regex") if isinstance(pattern, dict) else None))
        elif kind == "Digits":
            rules.append(("Digits", step.get("individual_digits")))
        elif kind == "ByteLevel":
            rules.append(("ByteLevel", step.get("add_prefix_space"), step.get("use_regex", True)))
        else:
            rules.append((kind, step))
    return rules
