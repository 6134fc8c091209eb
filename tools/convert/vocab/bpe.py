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

from ..json_file import read_json
from ..plan import Vocab
from .special import looks_special, padding_names, read_specials, refuse_duplicates, vocab_table

_TAIL = r"[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_SPLIT = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|" + _TAIL % r"\p{N}{1,3}"
QWEN2_SPLIT = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|" + _TAIL % r"\p{N}"
TEKKEN_SPLIT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
N_LLAMA3_BASE = 128000  # tokens of Llama 3 without the special ones


def read_bpe(path: Path, n_vocab: int, pre: Optional[str], notes: list[str]) -> Vocab:
    """The tokenizer of a byte-level tokenizer.json.

    Args:
        path: The tokenizer.json.
        n_vocab: Rows of the embedding.
        pre: The splitter's name; None: found from the file.
        notes: Gets a line for what was left out.
    """
    tokenizer = read_json(path)
    model = tokenizer.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE":
        kind = model.get("type") if isinstance(model, dict) else model
        raise UnsupportedModelError(f"{path}: the tokenizer's model is {kind!r}; BPE and SentencePiece are converted")
    texts = _base_tokens(path, vocab_table(path, model.get("vocab")), n_vocab)
    types: list[int] = [TokenType.NORMAL if i in texts else TokenType.UNUSED for i in range(n_vocab)]
    _put_added(path, tokenizer.get("added_tokens") or [], texts, types, notes)
    names = padding_names(n_vocab, {text.encode() for text in texts.values()})
    tokens = [texts[i].encode() if i in texts else names[i] for i in range(n_vocab)]
    refuse_duplicates(path, tokens)
    specials = read_specials(path.parent, tokens, load_merges=True)
    _check_merges(path, specials.merges, set(tokens))
    add = {"bos": False, **specials.add}  # a tokenizer that adds one says so in its post-processor
    pre = pre or find_pre(path, tokenizer)
    return Vocab("gpt2", pre, tokens, types, None, specials.merges, specials.ids, add, None, specials.chat_template)


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


def _put_added(path: Path, added: Any, texts: dict[int, str], types: list[int], notes: list[str]) -> None:
    for entry in added:
        if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            raise ModelFileError(f"{path}: added_tokens holds {entry!r}")
        i, text = entry.get("id"), entry["content"]
        if not isinstance(i, int) or i < 0:
            raise ModelFileError(f"{path}: the added token {text!r} has the id {i!r}")
        if i >= len(types):
            notes.append(f"the added token {text!r} has the id {i}, the embedding has {len(types)} rows: left out")
            continue
        control = bool(entry.get("special")) or looks_special(text)
        texts[i] = text if control else text.replace("\u2581", " ")
        types[i] = TokenType.CONTROL if control else TokenType.USER_DEFINED


def _check_merges(path: Path, merges: list[str], tokens: set[bytes]) -> None:
    if not merges:
        raise ModelFileError(f"{path}: the tokenizer has no merges, so it cannot split words")
    for rank, merge in enumerate(merges):
        parts = merge.split(" ")
        if len(parts) != 2 or "".join(parts).encode() not in tokens:
            raise ModelFileError(f"{path}: merge {rank} is {merge!r}, which makes no token of the vocabulary")


def find_pre(path: Path, tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name for how this tokenizer splits text.

    Raises:
        UnsupportedModelError: The rules are none that are known; the message says how to name the splitter.
    """
    rules = _split_rules(tokenizer.get("pre_tokenizer"))
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
    normalizers = _flat(tokenizer.get("normalizer"), "normalizers")
    if name is None or any(step.get("type") != "NFC" for step in normalizers):
        shown = json.dumps({key: tokenizer.get(key) for key in ("normalizer", "pre_tokenizer")}, ensure_ascii=False)
        raise UnsupportedModelError(
            f"{path}: the tokenizer splits text in a way that has no known name; if you know llama.cpp's, "
            f"give --pre NAME (tokenizer.ggml.pre). Its rules: {shown[:400]}"
        )
    return name


def _flat(step: Any, key: str) -> list[dict[str, Any]]:
    """The steps of a Sequence, or the one step, or none."""
    if not isinstance(step, dict):
        return []
    if step.get("type") != "Sequence":
        return [step]
    return [inner for part in step.get(key) or [] for inner in _flat(part, key)]


def _split_rules(pre_tokenizer: Any) -> list[tuple[Any, ...]]:
    """The splitting steps, without what does not change the split."""
    rules: list[tuple[Any, ...]] = []
    for step in _flat(pre_tokenizer, "pretokenizers"):
        kind = step.get("type")
        if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
            pattern = step.get("pattern") or {}
            rules.append(("Split", pattern.get("Regex")))
        elif kind == "Digits":
            rules.append(("Digits", step.get("individual_digits")))
        elif kind == "ByteLevel":
            rules.append(("ByteLevel", step.get("add_prefix_space"), step.get("use_regex", True)))
        else:
            rules.append((kind, step))
    return rules
