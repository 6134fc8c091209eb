"""Meta's Llama 3 tokenizer.model: lines of a base64 token and its rank; its special tokens are in no file.

Owns the ranks, the merges they imply, and the names of the special tokens.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Optional

from gguf import TokenType

from lazygguf.errors import ModelFileError

from ..plan import Vocab

N_SPECIAL = 256
MAX_SIZE = 64 * 1024 * 1024


def is_tiktoken(path: Path) -> bool:
    """Whether a tokenizer.model is tiktoken text and no SentencePiece model."""
    with open(path, "rb") as file:
        line = file.readline(1024)
    fields = line.split()
    if len(fields) != 2 or not fields[1].isdigit():
        return False
    try:
        base64.b64decode(fields[0], validate=True)
    except binascii.Error:
        return False
    return True


def read_tiktoken(path: Path, n_vocab: int, is_llama31: bool) -> Vocab:
    """The tokenizer of a Meta Llama 3 download.

    Args:
        path: The tiktoken file.
        n_vocab: Rows of the embedding.
        is_llama31: Whether the model is Llama 3.1 or later, which names more of the special tokens.
    """
    ranks = _read_ranks(path)
    if len(ranks) + N_SPECIAL != n_vocab:
        raise ModelFileError(
            f"{path}: {len(ranks)} tokens and {N_SPECIAL} special ones for an embedding of {n_vocab} rows"
        )
    to_text = byte_texts()
    ordered = sorted(ranks, key=lambda token: ranks[token])
    texts = ["".join(to_text[byte] for byte in token) for token in ordered]
    special = special_names(is_llama31)
    merges = []
    for token in ordered:
        parts = _merged_from(ranks, token)
        if parts is not None:
            merges.append(" ".join("".join(to_text[byte] for byte in part) for part in parts))
    ids = {name: len(ranks) + i for i, name in enumerate(special)}
    special_ids = {"bos": ids["<|begin_of_text|>"], "eos": ids["<|end_of_text|>"], "eot": ids["<|eot_id|>"]}
    if is_llama31:
        special_ids.update(eom=ids["<|eom_id|>"], pad=ids["<|finetune_right_pad_id|>"])
    tokens = [text.encode() for text in texts + special]
    types = [TokenType.NORMAL] * len(texts) + [TokenType.CONTROL] * len(special)
    return Vocab("gpt2", "llama-bpe", tokens, types, None, merges, special_ids, {"bos": True, "eos": False})


def _read_ranks(path: Path) -> dict[bytes, int]:
    if path.stat().st_size > MAX_SIZE:
        raise ModelFileError(f"{path}: {path.stat().st_size} bytes are too many for a tokenizer")
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        try:
            token, rank = base64.b64decode(fields[0], validate=True), int(fields[1])
        except (binascii.Error, ValueError, IndexError) as error:
            raise ModelFileError(
                f"{path}: line {number} is {line[:40]!r}, expected a base64 token and a rank"
            ) from error
        if token in ranks or not token:
            raise ModelFileError(f"{path}: line {number} gives the token {token!r} again or empty")
        ranks[token] = rank
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise ModelFileError(f"{path}: the ranks are not 0 to {len(ranks) - 1}, each once")
    return ranks


def _merged_from(ranks: dict[bytes, int], token: bytes) -> Optional[tuple[bytes, bytes]]:
    """The two tokens whose merge makes this one: the token split with the merges that come before it.

    None for a single byte, and for a token that no pair of earlier ones makes: it is found as a whole word
    only.
    """
    parts = [token[i : i + 1] for i in range(len(token))]
    limit = ranks[token]
    while len(parts) > 2:
        best, at = limit, -1
        for i in range(len(parts) - 1):
            rank = ranks.get(parts[i] + parts[i + 1], limit)
            if rank < best:
                best, at = rank, i
        if at < 0:
            return None
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return (parts[0], parts[1]) if len(parts) == 2 else None


def special_names(is_llama31: bool) -> list[str]:
    """The 256 special tokens in order; Llama 3.1 gave some of the reserved ones a name."""
    named = ["<|begin_of_text|>", "<|end_of_text|>"]
    reserved = iter(f"<|reserved_special_token_{i}|>" for i in range(N_SPECIAL))
    if is_llama31:
        named += [next(reserved), next(reserved), "<|finetune_right_pad_id|>", next(reserved)]
        named += ["<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"]
    else:
        named += [next(reserved) for _ in range(4)]
        named += ["<|start_header_id|>", "<|end_header_id|>", next(reserved), "<|eot_id|>"]
    return named + [next(reserved) for _ in range(N_SPECIAL - len(named))]


def byte_texts() -> list[str]:
    """GPT-2's printable character for each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    texts = {byte: chr(byte) for byte in printable}
    others = [byte for byte in range(256) if byte not in texts]
    texts.update({byte: chr(256 + i) for i, byte in enumerate(others)})
    return [texts[byte] for byte in range(256)]
