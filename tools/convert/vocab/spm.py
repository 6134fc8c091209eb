"""SentencePiece tokenizers: tokenizer.model, or a tokenizer.json that was made from one.

Owns the pieces, scores and types, and the added tokens of a folder. The reading of tokenizer.model is
sentencepiece's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gguf import TokenType

from lazygguf.errors import ModelFileError

from ..json_file import optional_json, read_json
from ..plan import Vocab
from .special import looks_special, padding_names, read_specials, refuse_duplicates, vocab_table

SPACE = "\u2581"
ADDED_SCORE, PADDING_SCORE = -1000.0, -10000.0


class _Table:
    """Tokens, scores and types by id, padded to the rows of the embedding."""

    def __init__(self, n_vocab: int) -> None:
        self.n_vocab = n_vocab
        self.tokens: dict[int, bytes] = {}
        self.scores = [PADDING_SCORE] * n_vocab
        self.types: list[int] = [TokenType.UNUSED] * n_vocab

    def put(self, i: int, token: str, score: float, kind: int) -> None:
        self.tokens[i], self.scores[i], self.types[i] = token.encode(), score, kind

    def padded(self) -> list[bytes]:
        names = padding_names(self.n_vocab, set(self.tokens.values()))
        return [self.tokens.get(i, names[i]) for i in range(self.n_vocab)]


def load_processor(path: Path) -> Any:
    """The SentencePiece model of a file."""
    try:
        import sentencepiece
    except ImportError as error:
        raise ModelFileError(
            f"{path}: reading it needs the sentencepiece package: pip install sentencepiece"
        ) from error
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromFile(str(path))
    except (RuntimeError, OSError) as error:
        raise ModelFileError(f"{path}: not a SentencePiece model, or damaged") from error
    return processor


def read_spm(path: Path, folder: Path, n_vocab: int, notes: list[str]) -> Vocab:
    """The tokenizer of a tokenizer.model.

    Args:
        path: The SentencePiece file.
        folder: Where added_tokens.json, tokenizer_config.json and the like may lie.
        n_vocab: Rows of the embedding.
        notes: Gets a line for what was left out.
    """
    processor = load_processor(path)
    n_pieces = processor.vocab_size()
    if n_pieces > n_vocab:
        raise ModelFileError(
            f"{path}: the tokenizer has {n_pieces} tokens and the embedding {n_vocab} rows; they are not of one model"
        )
    table = _Table(n_vocab)
    for i in range(n_pieces):
        table.put(i, processor.IdToPiece(i), processor.GetScore(i), _piece_type(processor, i))
    _put_added(table, folder, notes)
    tokens = table.padded()
    refuse_duplicates(path, tokens)
    specials = read_specials(folder, tokens, load_merges=False)
    ids = dict(specials.ids)
    for kind, i in (("bos", processor.bos_id()), ("eos", processor.eos_id()), ("unk", processor.unk_id())):
        if i >= 0:
            ids.setdefault(kind, i)
    return Vocab("llama", "default", tokens, table.types, table.scores, None, ids, specials.add,
                 _space_prefix(folder, processor), specials.chat_template)  # fmt: skip


def _piece_type(processor: Any, i: int) -> int:
    if processor.IsUnknown(i):
        return TokenType.UNKNOWN
    if processor.IsControl(i):
        return TokenType.CONTROL
    if processor.IsUnused(i):
        return TokenType.UNUSED
    return TokenType.BYTE if processor.IsByte(i) else TokenType.NORMAL


def _space_prefix(folder: Path, processor: Any) -> Any:
    """What tokenizer_config.json says about a space before the text; else False where the model adds none."""
    said = optional_json(folder / "tokenizer_config.json").get("add_prefix_space")
    if isinstance(said, bool):
        return said
    pieces = processor.EncodeAsPieces("a")
    return None if pieces and pieces[0].startswith(SPACE) else False


def _added_tokens(folder: Path) -> Iterator[tuple[int, str, bool]]:
    """id, text and whether it is special, of each token that the folder's JSON files add; later ones win."""
    path = folder / "added_tokens.json"
    for text, i in optional_json(path).items():
        yield _token_id(path, i), text, False
    path = folder / "tokenizer_config.json"
    decoder = optional_json(path).get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise ModelFileError(f"{path}: added_tokens_decoder is a {type(decoder).__name__}, expected an object")
    for i, entry in decoder.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            raise ModelFileError(f"{path}: the added token {i} is {entry!r}")
        yield _token_id(path, i), entry["content"], bool(entry.get("special"))


def _token_id(path: Path, value: Any) -> int:
    text = str(value)
    if not text.isdecimal() or isinstance(value, bool):
        raise ModelFileError(f"{path}: an added token has the id {value!r}")
    return int(text)


def _put_added(table: _Table, folder: Path, notes: list[str]) -> None:
    for i, text, special in _added_tokens(folder):
        if i >= table.n_vocab:
            notes.append(f"the added token {text!r} has the id {i}, the embedding has {table.n_vocab} rows: left out")
            continue
        control = special or table.types[i] == TokenType.CONTROL or looks_special(text)
        unknown = table.types[i] == TokenType.UNKNOWN and not special
        kind = TokenType.UNKNOWN if unknown else TokenType.CONTROL if control else TokenType.USER_DEFINED
        table.put(i, text if kind == TokenType.CONTROL else text.replace(SPACE, " "), ADDED_SCORE, kind)


def is_spm_json(tokenizer: dict[str, Any]) -> bool:
    """Whether a tokenizer.json is a SentencePiece model in another form: BPE that falls back to bytes."""
    model = tokenizer.get("model")
    return isinstance(model, dict) and model.get("type") == "BPE" and bool(model.get("byte_fallback"))


def read_spm_json(path: Path, n_vocab: int, notes: list[str]) -> Vocab:
    """The tokenizer of a tokenizer.json made from a SentencePiece model.

    The file has merges in place of scores: a piece's score is minus the rank of the merge that makes it,
    which gives SentencePiece's order of merging.
    """
    tokenizer = read_json(path)
    model = tokenizer["model"]
    table = _Table(n_vocab)
    ranks = _merge_ranks(path, model.get("merges") or [])
    for text, i in vocab_table(path, model.get("vocab")).items():
        if i >= n_vocab:
            raise ModelFileError(f"{path}: the token {text!r} has the id {i}, the embedding has {n_vocab} rows")
        byte = re.fullmatch(r"<0x[0-9A-Fa-f]{2}>", text) is not None
        kind = TokenType.BYTE if byte else TokenType.UNKNOWN if text == model.get("unk_token") else TokenType.NORMAL
        table.put(i, text, 0.0 if kind != TokenType.NORMAL else -float(ranks.get(text, len(ranks) + i)), kind)
    for entry in tokenizer.get("added_tokens") or []:
        i, text = entry["id"], entry["content"]
        if i >= n_vocab:
            notes.append(f"the added token {text!r} has the id {i}, the embedding has {n_vocab} rows: left out")
        elif table.types[i] != TokenType.UNKNOWN:
            kind = TokenType.CONTROL if entry.get("special") or looks_special(text) else TokenType.USER_DEFINED
            table.put(i, text if kind == TokenType.CONTROL else text.replace(SPACE, " "), ADDED_SCORE, kind)
    tokens = table.padded()
    refuse_duplicates(path, tokens)
    specials = read_specials(path.parent, tokens, load_merges=False)
    return Vocab("llama", "default", tokens, table.types, table.scores, None, specials.ids, specials.add,
                 _json_space_prefix(path, tokenizer), specials.chat_template)  # fmt: skip


def _merge_ranks(path: Path, merges: Any) -> dict[str, int]:
    """The first merge that makes each piece."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
            raise ModelFileError(f"{path}: merge {rank} is {merge!r}, expected two pieces")
        ranks.setdefault(parts[0] + parts[1], rank)
    return ranks


def _json_space_prefix(path: Path, tokenizer: dict[str, Any]) -> Any:
    """As _space_prefix; the model adds a space where a normalizer or the Metaspace step puts one in front."""
    said = optional_json(path.parent / "tokenizer_config.json").get("add_prefix_space")
    if isinstance(said, bool):
        return said
    normalizer = tokenizer.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer])
    metaspace = tokenizer.get("pre_tokenizer") or {}
    prepends = any(step.get("type") == "Prepend" for step in steps)
    return None if prepends or metaspace.get("prepend_scheme", "never") != "never" else False
