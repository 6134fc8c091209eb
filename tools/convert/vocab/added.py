"""Added tokens: those that the JSON files of a folder put beside the tokenizer's own.

Owns where they stand, what an entry may look like, and which of their flags GGUF has no word for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lazygguf.errors import ModelFileError, UnsupportedModelError

from ..json_file import optional_json, shown

# what a flag does to the text beside the token; llama.cpp has no key for any of them
_FLAGS = {
    "lstrip": "takes the spaces before it",
    "rstrip": "takes the spaces behind it",
    "single_word": "counts as a whole word only",
}


@dataclass(frozen=True)
class AddedToken:
    id: int
    text: str
    special: bool = False
    normalized: bool = False  # it is looked for in the normalized text


def added_of_tokenizer(path: Path, tokenizer: Mapping[str, Any]) -> list[AddedToken]:
    """added_tokens of a tokenizer.json, in the file's order."""
    entries = tokenizer.get("added_tokens") or []
    if not isinstance(entries, list):
        raise ModelFileError(f"{path}: added_tokens is a {type(entries).__name__}, expected a list")
    found = []
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            raise ModelFileError(f"{path}: added_tokens holds {shown(entry)}")
        i, text = entry.get("id"), entry["content"]
        if not isinstance(i, int) or isinstance(i, bool) or i < 0:
            raise ModelFileError(f"{path}: the added token {shown(text)} has the id {shown(i)}")
        found.append(_token(path, i, entry))
    return found


def added_of_folder(folder: Path) -> Iterator[AddedToken]:
    """Those of added_tokens.json and tokenizer_config.json, where files of before transformers 5 have them."""
    path = folder / "added_tokens.json"
    for text, i in optional_json(path).items():
        yield _token(path, _token_id(path, i), {"content": text})
    path = folder / "tokenizer_config.json"
    decoder = optional_json(path).get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise ModelFileError(f"{path}: added_tokens_decoder is a {type(decoder).__name__}, expected an object")
    for i, entry in decoder.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            raise ModelFileError(f"{path}: the added token {shown(i)} is {shown(entry)}")
        yield _token(path, _token_id(path, i), entry)


def _token(path: Path, i: int, entry: Mapping[str, Any]) -> AddedToken:
    text = entry["content"]
    if not text:
        raise ModelFileError(f"{path}: the added token {i} has no text")
    for flag, effect in _FLAGS.items():
        if entry.get(flag):
            raise UnsupportedModelError(
                f"{path}: the added token {shown(text)} has {flag}: it {effect}, which a GGUF file cannot say"
            )
    return AddedToken(i, text, bool(entry.get("special")), bool(entry.get("normalized")))


def _token_id(path: Path, value: Any) -> int:
    text = str(value)
    if not text.isdecimal() or isinstance(value, bool) or len(text) > 9:
        raise ModelFileError(f"{path}: an added token has the id {shown(value)}")
    return int(text)


def left_out(token: AddedToken, n_vocab: int) -> str:
    """The note about a token that has no row in the embedding."""
    return f"the added token {shown(token.text)} has the id {token.id}, the embedding has {n_vocab} rows: left out"
