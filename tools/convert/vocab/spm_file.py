"""The settings in a SentencePiece file that say how it splits text.

Owns the reading of a few fields of the file, a protocol buffer, and the list of settings that GGUF's "llama" tokenizer
has no word for. Pieces and scores are read by the sentencepiece package, which does not tell these settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Optional, Union

from lazygguf.errors import ModelFileError, UnsupportedModelError

Value = Union[int, bytes]

# field numbers of sentencepiece_model.proto
_PIECE, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE_TYPE, _USER_DEFINED = 3, 4  # of a piece
_MODEL_TYPE, _SUFFIX = 3, 24  # of the trainer
_NAME, _CHARS_MAP, _EXTRA_SPACES, _ESCAPE, _RULES = 1, 2, 4, 5, 6  # of the normalizer
_MODEL_TYPES = {1: "unigram", 2: "BPE", 3: "word", 4: "char"}


def refuse_unsayable(path: Path) -> None:
    """Raises UnsupportedModelError where a SentencePiece model splits text in a way that GGUF cannot say."""
    fields = dict(_fields(path, path.read_bytes()))
    trainer, normalizer = (dict(_fields(path, _bytes(fields.get(i)))) for i in (_TRAINER, _NORMALIZER))
    kind = trainer.get(_MODEL_TYPE, 1)
    if kind != 2:
        name = _MODEL_TYPES.get(kind, kind) if isinstance(kind, int) else "unknown"
        raise UnsupportedModelError(f"{path}: a SentencePiece model of the {name} kind; only BPE is converted")
    rule = _bytes(normalizer.get(_NAME)).decode("utf-8", "replace") or "its own"
    unsayable = {
        f"its normalizer ({rule}) changes characters": bool(
            _bytes(normalizer.get(_CHARS_MAP)) or normalizer.get(_RULES)
        ),
        "it takes out extra spaces (remove_extra_whitespaces)": bool(normalizer.get(_EXTRA_SPACES, 1)),
        "it leaves spaces as they are (escape_whitespaces false)": not normalizer.get(_ESCAPE, 1),
        "it puts the space behind a word (treat_whitespace_as_suffix)": bool(trainer.get(_SUFFIX, 0)),
    }
    for what, is_so in unsayable.items():
        if is_so:
            raise UnsupportedModelError(f"{path}: {what}, which a GGUF file cannot say")


def user_defined_pieces(path: Path) -> set[int]:
    """The ids of the pieces that stand in a text as they are (user_defined_symbols)."""
    pieces = [dict(_fields(path, _bytes(piece))) for i, piece in _fields(path, path.read_bytes()) if i == _PIECE]
    return {i for i, piece in enumerate(pieces) if piece.get(_PIECE_TYPE) == _USER_DEFINED}


def _bytes(value: Optional[Value]) -> bytes:
    return value if isinstance(value, bytes) else b""


def _fields(path: Path, data: bytes) -> Iterator[tuple[int, Value]]:
    """Number and value of each field of a message; the last of one number counts."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while at < len(data) and shift < 64:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
        raise ModelFileError(f"{path}: not a SentencePiece model, or damaged")

    while at < len(data):
        tag = varint()
        kind = tag & 7
        if kind == 0:
            yield tag >> 3, varint()
            continue
        size = {1: 8, 5: 4}.get(kind)
        size = varint() if kind == 2 else size
        if size is None or at + size > len(data):
            raise ModelFileError(f"{path}: not a SentencePiece model, or damaged")
        yield tag >> 3, data[at : at + size]
        at += size
