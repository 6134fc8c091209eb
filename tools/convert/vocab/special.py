"""Special tokens, their flags and the chat template of a Hugging Face folder.

Owns what is not in the vocabulary itself. The reading is the gguf package's SpecialVocab, which llama.cpp's
own converter uses; this adds what it leaves out: negative ids mean none, tokenizer_config.json also counts
where there is no tokenizer.json, and a chat template also counts without tokenizer_config.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf

from lazygguf.errors import ModelFileError

from ..json_file import optional_json

KINDS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


@dataclass(frozen=True)
class Specials:
    ids: dict[str, int]
    add: dict[str, bool]
    chat_template: Any
    merges: list[str]


class _Reader(gguf.SpecialVocab):
    """SpecialVocab that takes a negative id for none, as config files with pad_token_id -1 mean it."""

    def _set_special_token(self, typ: str, tid: Any) -> None:
        if isinstance(tid, int) and not isinstance(tid, bool) and tid >= 0:
            super()._set_special_token(typ, tid)


def read_specials(folder: Path, tokens: Sequence[bytes], load_merges: bool) -> Specials:
    """What the JSON files of a folder say about special tokens; ids are below len(tokens)."""
    config = optional_json(folder / "tokenizer_config.json")
    try:
        reader = _Reader(folder, load_merges=load_merges, n_vocab=len(tokens))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise ModelFileError(f"{folder}: the tokenizer's JSON files do not fit together: {error!r}") from error
    ids = dict(reader.special_token_ids)
    if not (folder / "tokenizer.json").is_file():
        ids.update(_named_ids(config, tokens))
    template = reader.chat_template
    if template is None and (folder / "chat_template.jinja").is_file():
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    return Specials(ids, dict(reader.add_special_token), template, list(reader.merges))


def _named_ids(config: dict[str, Any], tokens: Sequence[bytes]) -> dict[str, int]:
    """Ids of the tokens that tokenizer_config.json names; it knows the chat's end, config.json does not."""
    positions = {token: i for i, token in enumerate(tokens)}
    ids = {}
    for kind in KINDS:
        entry = config.get(f"{kind}_token")
        text = entry.get("content") if isinstance(entry, dict) else entry
        if isinstance(text, str) and text.encode() in positions:
            ids[kind] = positions[text.encode()]
    return ids


def vocab_table(path: Path, vocab: Any) -> dict[str, int]:
    """model.vocab of a tokenizer.json: the id of each token."""
    if not isinstance(vocab, dict) or not all(isinstance(i, int) and i >= 0 for i in vocab.values()):
        raise ModelFileError(f"{path}: model.vocab is no table of token ids")
    return vocab


def looks_special(token: str) -> bool:
    """Whether a token is a control token by its look, where a tokenizer forgot to say so."""
    if token in ("<pad>", "<mask>", "<2mass>", "[@BOS@]"):
        return True
    brackets = (("<|", "|>"), ("<\uff5c", "\uff5c>"), ("<unused", ">"))
    return any(token.startswith(left) and token.endswith(right) for left, right in brackets)


def refuse_duplicates(path: Path, tokens: Sequence[bytes]) -> None:
    """Raises when two ids have one text: llama.cpp ends the process on such a file."""
    seen: dict[bytes, int] = {}
    for i, token in enumerate(tokens):
        if token in seen:
            raise ModelFileError(
                f"{path}: the tokens {seen[token]} and {i} are both {token.decode('utf-8', 'replace')!r}"
            )
        seen[token] = i


def padding_names(n_vocab: int, taken: set[bytes]) -> list[bytes]:
    """A name for every id, for those that no token claims: none is in taken."""
    names = []
    for i in range(n_vocab):
        name = f"[PAD{i}]".encode()
        while name in taken:
            name += b"_"
        names.append(name)
    return names
