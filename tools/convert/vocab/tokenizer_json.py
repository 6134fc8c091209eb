"""A tokenizer.json, in pieces whose types have been asked.

Owns what its parts must look like, and the tokenizers library's reading of the whole file, which a converted
vocabulary is compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from lazygguf.errors import ModelFileError, UnsupportedModelError

from ..json_file import shown

Encode = Callable[[str], list[int]]


def flat_steps(path: Path, tokenizer: dict[str, Any], part: str) -> list[dict[str, Any]]:
    """The steps of "normalizer" or "pre_tokenizer": those of a Sequence, the one step, or none."""
    key = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers"}[part]
    return _flat(path, part, tokenizer.get(part), key, 0)


def _flat(path: Path, part: str, step: Any, key: str, depth: int) -> list[dict[str, Any]]:
    if step is None:
        return []
    if not isinstance(step, dict) or not isinstance(step.get("type"), str) or depth > 8:
        raise ModelFileError(f"{path}: {part} has the step {shown(step)}, expected an object with a type")
    if step["type"] != "Sequence":
        return [step]
    inner = step.get(key)
    if not isinstance(inner, list):
        raise ModelFileError(f"{path}: {part} is a Sequence of {shown(inner)}, expected a list")
    return [found for each in inner for found in _flat(path, part, each, key, depth + 1)]


def read_merges(path: Path, model: dict[str, Any]) -> list[tuple[str, str]]:
    """The pairs of model.merges, in order; they are texts "a b" or lists ["a", "b"]."""
    merges = model.get("merges") or []
    if not isinstance(merges, list):
        raise ModelFileError(f"{path}: model.merges is a {type(merges).__name__}, expected a list")
    pairs = []
    for rank, merge in enumerate(merges):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) and part for part in parts):
            raise ModelFileError(f"{path}: merge {rank} is {shown(merge)}, expected two pieces")
        pairs.append((parts[0], parts[1]))
    return pairs


def refuse_model_settings(path: Path, model: dict[str, Any]) -> None:
    """Raises UnsupportedModelError for settings of a BPE model that GGUF has no key for."""
    for key in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(key):
            raise UnsupportedModelError(
                f"{path}: the model has {key} {shown(model[key])}, which a GGUF file cannot say"
            )


def note_nfc(steps: list[dict[str, Any]], notes: list[str]) -> list[dict[str, Any]]:
    """The normalizer's steps without NFC, which is noted: it changes no text that is in this form, and most is."""
    others = [step for step in steps if step["type"] != "NFC"]
    if len(others) < len(steps):
        notes.append(
            "the tokenizer brings text into Unicode's form NFC first, llama.cpp does not: a letter with its accent as "
            "a character of its own is split otherwise"
        )
    return others


def load_encode(path: Path, notes: list[str]) -> Optional[Encode]:
    """How the tokenizers library splits a text, without what the post-processor adds; None where it cannot tell."""
    try:
        import tokenizers
    except ImportError:
        notes.append("the vocabulary is not compared with the original: that needs tokenizers (pip install tokenizers)")
        return None
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of the library is no Exception
        notes.append(
            f"tokenizers {tokenizers.__version__} does not read {path.name} ({shown(str(error))}): the vocabulary is "
            "not compared with the original"
        )
        return None

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    return encode
