"""SentencePiece tokenizers that are a tokenizer.model alone.

Owns the pieces, scores and types, and the added tokens of a folder without tokenizer.json. The reading of
tokenizer.model is sentencepiece's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from gguf import TokenType

from lazygguf.errors import ModelFileError, UnsupportedModelError

from ..json_file import optional_json, shown
from ..plan import Original, Vocab
from .added import added_of_folder, left_out
from .chat_template import read_chat_template
from .special import looks_special, name_an_end, padding_names, read_specials, refuse_duplicates
from .spm_file import refuse_unsayable, user_defined_pieces

SPACE = "\u2581"
ADDED_SCORE, PADDING_SCORE = -1000.0, -10000.0


class Table:
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
        for i in range(processor.vocab_size()):
            processor.IdToPiece(i)
    except (RuntimeError, OSError, UnicodeDecodeError) as error:  # a piece, or a piece in the error's text, is no UTF-8
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
    refuse_unsayable(path)
    table = Table(n_vocab)
    put_pieces(table, path, processor)
    prefix = _space_prefix(folder, processor)
    if prefix is None:
        _refuse_user_defined(path, table)
    _put_added(table, folder, notes)
    tokens = table.padded()
    refuse_duplicates(path, tokens)
    specials = read_specials(folder, tokens, None, notes)
    ids = dict(specials.ids)
    for kind, i in (("bos", processor.bos_id()), ("eos", processor.eos_id()), ("unk", processor.unk_id())):
        if i >= 0:
            ids.setdefault(kind, i)
    name_an_end(ids, tokens, table.types, notes)
    add = {"bos": "bos" in ids, **specials.add}
    if "bos" not in ids and add["bos"]:
        raise ModelFileError(
            f"{folder / 'tokenizer_config.json'}: add_bos_token is true, but no file names a BOS token"
        )
    original = Original(path, processor.EncodeAsIds, with_control=False)
    return Vocab("llama", "default", tokens, table.types, table.scores, None, ids, add,
                 prefix, read_chat_template(folder, notes), original)  # fmt: skip


def put_pieces(table: Table, path: Path, processor: Any) -> None:
    """The pieces of a model with their scores and types."""
    n_pieces = processor.vocab_size()
    if n_pieces > table.n_vocab:
        raise ModelFileError(
            f"{path}: the tokenizer has {n_pieces} tokens and the embedding {table.n_vocab} rows; they are not of one "
            "model"
        )
    user_defined = user_defined_pieces(path)
    for i in range(n_pieces):
        piece = processor.IdToPiece(i)
        kind = _piece_type(processor, i)
        if i in user_defined and " " not in piece:  # with a space it is never found: they are U+2581 by then
            kind = TokenType.USER_DEFINED
        text = piece.replace(SPACE, " ") if kind == TokenType.USER_DEFINED else piece
        table.put(i, text, processor.GetScore(i), kind)
        if kind == TokenType.UNUSED:
            raise UnsupportedModelError(
                f"{path}: the piece {shown(piece)} is unused: sentencepiece takes it apart again, llama.cpp would not"
            )


def _refuse_user_defined(path: Path, table: Table) -> None:
    """Behind such a piece llama.cpp puts a space before the text again, sentencepiece does not."""
    for i, kind in enumerate(table.types):
        if kind == TokenType.USER_DEFINED:
            raise UnsupportedModelError(
                f"{path}: the piece {shown(table.tokens[i].decode())} is one of user_defined_symbols, in a model that "
                "puts a space before a text (add_dummy_prefix); a GGUF file can say one of both"
            )


def _piece_type(processor: Any, i: int) -> int:
    if processor.IsUnknown(i):
        return TokenType.UNKNOWN
    if processor.IsControl(i):
        return TokenType.CONTROL
    if processor.IsUnused(i):
        return TokenType.UNUSED
    return TokenType.BYTE if processor.IsByte(i) else TokenType.NORMAL


def _space_prefix(folder: Path, processor: Any) -> Optional[bool]:
    """What tokenizer_config.json says about a space before the text; else False where the model adds none."""
    said = optional_json(folder / "tokenizer_config.json").get("add_prefix_space")
    if isinstance(said, bool):
        return said
    pieces = processor.EncodeAsPieces("a")
    return None if pieces and pieces[0].startswith(SPACE) else False


def _put_added(table: Table, folder: Path, notes: list[str]) -> None:
    for token in added_of_folder(folder):
        if token.id >= table.n_vocab:
            notes.append(left_out(token, table.n_vocab))
            continue
        control = token.special or table.types[token.id] == TokenType.CONTROL or looks_special(token.text)
        unknown = table.types[token.id] == TokenType.UNKNOWN and not token.special
        kind = TokenType.UNKNOWN if unknown else TokenType.CONTROL if control else TokenType.USER_DEFINED
        text = token.text if kind == TokenType.CONTROL else token.text.replace(SPACE, " ")
        table.put(token.id, text, ADDED_SCORE, kind)
