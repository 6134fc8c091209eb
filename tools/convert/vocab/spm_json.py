"""A tokenizer.json that is a SentencePiece model in another form: BPE that falls back to bytes.

Owns the way from merges to scores, and which normalizers and pre-tokenizers GGUF's "llama" tokenizer does the same
as. It puts a space before a text, makes every space U+2581, and merges by score whatever makes a piece.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Optional

from gguf import TokenType

from lazygguf.errors import ModelFileError, UnsupportedModelError

from ..json_file import optional_json, shown
from ..plan import Original, Vocab
from .added import added_of_folder, added_of_tokenizer, left_out
from .chat_template import read_chat_template
from .special import looks_special, name_an_end, read_specials, refuse_duplicates, vocab_table
from .spm import ADDED_SCORE, SPACE, Table, load_processor, put_pieces
from .spm_file import refuse_unsayable
from .tiktoken import is_tiktoken
from .tokenizer_json import flat_steps, load_encode, note_nfc, read_merges, refuse_model_settings

Pair = tuple[str, str]


def is_spm_json(tokenizer: dict[str, Any]) -> bool:
    """Whether a tokenizer.json is of this kind."""
    model = tokenizer.get("model")
    return isinstance(model, dict) and model.get("type") == "BPE" and bool(model.get("byte_fallback"))


def read_spm_json(path: Path, tokenizer: dict[str, Any], n_vocab: int, notes: list[str]) -> Vocab:
    """The tokenizer of a tokenizer.json.

    Args:
        path: The file.
        tokenizer: What is in it.
        n_vocab: Rows of the embedding.
        notes: Gets a line for what was left out.
    """
    model = tokenizer["model"]
    refuse_model_settings(path, model)
    table = Table(n_vocab)
    ids = vocab_table(path, model.get("vocab"))
    largest = max(ids.values(), default=-1)
    if largest >= n_vocab:
        raise ModelFileError(
            f"{path}: the vocabulary reaches id {largest}, the embedding has {n_vocab} rows; they are not of one model"
        )
    if len(set(ids.values())) != len(ids):
        raise ModelFileError(f"{path}: {len(ids) - len(set(ids.values()))} token ids are given twice")
    merges = read_merges(path, model)
    spaces = _Spaces(path, tokenizer, model, notes)
    if merges:
        _put_merged(table, path, model, ids, merges)
    else:
        _put_from_model_file(table, path, ids, notes)
    _put_added(table, path, tokenizer, spaces, notes)
    tokens = table.padded()
    refuse_duplicates(path, tokens)
    specials = read_specials(path.parent, tokens, tokenizer, notes)
    special_ids = dict(specials.ids)
    name_an_end(special_ids, tokens, table.types, notes)
    encode = load_encode(path, notes) if merges else None
    original = encode and Original(path, encode, with_control=True, with_space_first=not spaces.is_metaspace)
    return Vocab("llama", "default", tokens, table.types, table.scores, None, special_ids, specials.add,
                 spaces.prefix(path, notes), read_chat_template(path.parent, notes), original or None)  # fmt: skip


class _Spaces:
    """What the normalizer and the pre-tokenizer do with spaces; anything else that they do is refused."""

    def __init__(self, path: Path, tokenizer: dict[str, Any], model: dict[str, Any], notes: list[str]) -> None:
        self.prepends = self.escapes = self.is_metaspace = self.changes_added = False
        for step in note_nfc(flat_steps(path, tokenizer, "normalizer"), notes):
            if step == {"type": "Prepend", "prepend": SPACE}:
                self.prepends = self.changes_added = True
            elif step == {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}:
                self.escapes = self.changes_added = True
            else:
                raise UnsupportedModelError(
                    f"{path}: the normalizer has a step {shown(step['type'])} ({_shown(step)}), which a "
                    "GGUF file cannot say"
                )
        steps = flat_steps(path, tokenizer, "pre_tokenizer")
        for step in steps:
            if step["type"] != "Metaspace" or len(steps) > 1:
                raise UnsupportedModelError(
                    f"{path}: the pre-tokenizer has the steps {', '.join(s['type'][:40] for s in steps[:9])}; a GGUF "
                    "file of this kind can only say one Metaspace"
                )
            self._metaspace(path, step, model, notes)
        if not self.escapes:
            raise UnsupportedModelError(
                f"{path}: neither the normalizer nor the pre-tokenizer makes a space {SPACE!r}, as a GGUF file of this "
                "kind says"
            )

    def _metaspace(self, path: Path, step: dict[str, Any], model: dict[str, Any], notes: list[str]) -> None:
        scheme = step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never")
        if step.get("replacement") != SPACE or scheme not in ("first", "always", "never"):
            raise UnsupportedModelError(f"{path}: the pre-tokenizer's Metaspace ({_shown(step)}) is none that is known")
        across = next((piece for piece in model["vocab"] if SPACE in piece[1:] and len(piece) > 1), None)
        if step.get("split", True) and across is not None:
            raise UnsupportedModelError(
                f"{path}: the pre-tokenizer's Metaspace splits at spaces, the piece {shown(across)} reaches over one; "
                "a GGUF file cannot say that it is never made"
            )
        if scheme != "never" and not self.prepends:
            behind = " and behind a special token" if scheme == "first" else ""
            notes.append(
                f"the tokenizer puts no space before a text that begins with one{behind}, llama.cpp does: such a text "
                "gets one token more"
            )
        self.is_metaspace = scheme != "never" and not self.prepends
        self.prepends |= scheme != "never"
        self.escapes = True

    def prefix(self, path: Path, notes: list[str]) -> Optional[bool]:
        """add_space_prefix; None: llama.cpp's default, true.

        transformers lets tokenizer_config.json decide for its own class of this kind only.
        """
        config = optional_json(path.parent / "tokenizer_config.json")
        said = config.get("add_prefix_space")
        if isinstance(said, bool) and said != self.prepends:
            if config.get("tokenizer_class") in ("LlamaTokenizer", "LlamaTokenizerFast"):
                return said
            notes.append(
                f"tokenizer_config.json: add_prefix_space is {str(said).lower()}, tokenizer.json says otherwise: the "
                "latter counts"
            )
        return None if self.prepends else False


def _put_merged(table: Table, path: Path, model: dict[str, Any], ids: dict[str, int], merges: list[Pair]) -> None:
    """A piece's score is minus the rank of the first merge that makes it: SentencePiece's order of merging."""
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        ranks.setdefault(left + right, rank)
    for text, i in ids.items():
        byte = re.fullmatch(r"<0x[0-9A-Fa-f]{2}>", text) is not None
        kind = TokenType.BYTE if byte else TokenType.UNKNOWN if text == model.get("unk_token") else TokenType.NORMAL
        table.put(i, text, 0.0 if kind != TokenType.NORMAL else -float(ranks.get(text, len(ranks) + i)), kind)
    _check_merges(path, ids, merges)


def _check_merges(path: Path, ids: dict[str, int], merges: list[Pair]) -> None:
    """Merging by score makes a piece of any two that fit. So every such pair must be a merge, and those of one piece
    must stand together: else the original splits some texts otherwise, and no score can say so."""
    known: dict[str, list[int]] = {}
    for rank, (left, right) in enumerate(merges):
        if left not in ids or right not in ids or left + right not in ids:
            raise ModelFileError(
                f"{path}: merge {rank} is {shown(left)} {shown(right)}, which makes no token of the vocabulary"
            )
        known.setdefault(left + right, []).append(rank)
    pairs = set(merges)
    for piece in ids:
        # No merge is meant to make a byte or a special token. Llama's own merges of spaces alone do not stand together,
        # and yet llama.cpp splits alike: the trial of the vocabulary has runs of spaces.
        if re.fullmatch(r"<.+>", piece) is not None or not piece.strip(SPACE):
            continue
        for pair in ((piece[:at], piece[at:]) for at in range(1, len(piece))):
            if pair not in pairs and pair[0] in ids and pair[1] in ids:
                raise UnsupportedModelError(
                    f"{path}: no merge makes {shown(piece)} of {shown(pair[0])} and {shown(pair[1])}; a GGUF file of "
                    "this kind would, it has a score for each piece and no list of merges"
                )
        ranks = known.get(piece, [0])
        if ranks[-1] - ranks[0] != len(ranks) - 1:
            raise UnsupportedModelError(
                f"{path}: the merges that make {shown(piece)} do not stand together; a GGUF file of this kind has one "
                "rank for each piece"
            )


def _put_from_model_file(table: Table, path: Path, ids: dict[str, int], notes: list[str]) -> None:
    """Without merges, the scores are those of the tokenizer.model beside the file, if its pieces are the same."""
    spm = path.parent / "tokenizer.model"
    if not spm.is_file() or is_tiktoken(spm):
        raise ModelFileError(
            f"{path}: the tokenizer has no merges, so it cannot make words, and no tokenizer.model beside"
        )
    processor = load_processor(spm)
    refuse_unsayable(spm)
    put_pieces(table, spm, processor)
    for text, i in ids.items():
        if table.tokens.get(i) != text.encode():
            raise ModelFileError(
                f"{path}: token {i} is {shown(text)}, which {spm.name} does not have there; it has no merges"
            )
    notes.append(f"{path.name} has no merges: the scores are those of {spm.name}, which has the same pieces")


def _put_added(table: Table, path: Path, tokenizer: dict[str, Any], spaces: _Spaces, notes: list[str]) -> None:
    for token in added_of_tokenizer(path, tokenizer):
        if token.id >= table.n_vocab:
            notes.append(left_out(token, table.n_vocab))
        elif table.types[token.id] != TokenType.UNKNOWN:
            control = token.special or looks_special(token.text)
            if token.normalized and spaces.changes_added and not control:
                raise UnsupportedModelError(
                    f"{path}: the added token {shown(token.text)} is normalized: it is found behind a space only, "
                    "which a GGUF file cannot say"
                )
            kind = TokenType.CONTROL if control else TokenType.USER_DEFINED
            table.put(token.id, token.text, ADDED_SCORE, kind)
    taken = set(table.tokens.values())
    for token in added_of_folder(path.parent):  # files of before transformers 5; tokenizer.json has most of them
        if token.text.encode() in taken:
            continue
        if token.id >= table.n_vocab or token.id in table.tokens:
            notes.append(f"the added token {shown(token.text)} ({token.id}) is not in {path.name}: left out")
            continue
        control = token.special or looks_special(token.text)
        table.put(token.id, token.text, ADDED_SCORE, TokenType.CONTROL if control else TokenType.USER_DEFINED)


def _shown(step: dict[str, Any]) -> str:
    text = ", ".join(f"{key} {shown(value)}" for key, value in step.items() if key != "type")
    return text if len(text) <= 80 else text[:80] + "..."
