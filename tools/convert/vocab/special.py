"""Special tokens of a Hugging Face folder, and which of them a tokenizer puts around a text.

Owns the precedence, which is that of transformers 5: a token is the one that tokenizer_config.json names, else the
one whose id stands in config.json; where there is a tokenizer.json, its post-processor alone says what is added to a
text. GGUF has a default for what is left out, so "no BOS" is always written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from gguf import TokenType

from lazygguf.errors import ModelFileError, UnsupportedModelError

from ..json_file import optional_json, shown

KINDS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


@dataclass(frozen=True)
class Specials:
    ids: dict[str, int]
    add: dict[str, bool]  # "bos", "eos": whether a text gets one


@dataclass(frozen=True)
class _Around:
    """The token that a post-processor puts before a text, and the one behind it."""

    before: Optional[str] = None
    behind: Optional[str] = None


def read_specials(
    folder: Path, tokens: Sequence[bytes], tokenizer: Optional[Mapping[str, Any]], notes: list[str]
) -> Specials:
    """What the JSON files of a folder say about special tokens; ids are below len(tokens).

    Args:
        folder: Where the files lie.
        tokens: The vocabulary.
        tokenizer: The tokenizer.json; None where the folder has none.
        notes: Gets a line for what was left out.
    """
    config = optional_json(folder / "tokenizer_config.json")
    positions = {token: i for i, token in enumerate(tokens)}
    ids = _named_ids(folder, config, positions, notes)
    for kind, i in _config_ids(folder, len(tokens), notes).items():
        ids.setdefault(kind, i)
    _add_other_ends(ids, _ends(folder, len(tokens), notes), tokens, notes)
    if tokenizer is None:
        return Specials(ids, _said_flags(folder / "tokenizer_config.json", config))
    around = _around(folder / "tokenizer.json", tokenizer.get("post_processor"))
    _check_flags(config, around, notes)
    for kind, text in (("bos", around.before), ("eos", around.behind)):
        if text is None:
            continue
        at = positions.get(text.encode())
        if at is None:
            raise ModelFileError(
                f"{folder / 'tokenizer.json'}: the post-processor adds {shown(text)}, which is no token"
            )
        if kind == "eos" and ids.get("eos", at) != at:
            raise UnsupportedModelError(
                f"{folder / 'tokenizer.json'}: the post-processor ends a text with {shown(text)}, EOS is another "
                "token; a GGUF file can only say that EOS is added"
            )
        ids[kind] = at
    add = {"bos": around.before is not None}  # always written: for some vocabularies llama.cpp's default is true
    return Specials(ids, add if around.behind is None else {**add, "eos": True})


def _named_ids(
    folder: Path, config: Mapping[str, Any], positions: Mapping[bytes, int], notes: list[str]
) -> dict[str, int]:
    """Ids of the tokens that tokenizer_config.json names, or special_tokens_map.json before transformers 5."""
    older = optional_json(folder / "special_tokens_map.json")
    ids = {}
    for kind in KINDS:
        entry = config.get(f"{kind}_token")
        entry = older.get(f"{kind}_token") if entry is None else entry
        text = entry.get("content") if isinstance(entry, dict) else entry
        if not isinstance(text, str) or not text:
            continue
        if text.encode() in positions:
            ids[kind] = positions[text.encode()]
        elif kind in ("bos", "eos"):
            notes.append(
                f"the tokenizer names {shown(text)} as its {kind.upper()} token, which the vocabulary does not have"
            )
    return ids


def _config_ids(folder: Path, n_vocab: int, notes: list[str]) -> dict[str, int]:
    """The ids of config.json; negative ones and null mean none, of a list the first counts."""
    found = {kind: _ids(folder, "config.json", kind, n_vocab, notes) for kind in KINDS}
    return {kind: ids[0] for kind, ids in found.items() if ids}


def _ids(folder: Path, name: str, kind: str, n_vocab: int, notes: list[str]) -> list[int]:
    """The ids that a file names for a kind of token: one, or a list of them."""
    value = optional_json(folder / name).get(f"{kind}_token_id")
    ids = []
    for i in value if isinstance(value, list) else [value]:
        if i is None or (_is_int(i) and i < 0):
            continue
        if not _is_int(i):
            notes.append(f"{name}: {kind}_token_id is {shown(value)}, expected a token id: left out")
        elif i >= n_vocab:
            notes.append(f"{name}: {kind}_token_id is {i}, the embedding has {n_vocab} rows: left out")
        else:
            ids.append(i)
    return ids


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _ends(folder: Path, n_vocab: int, notes: list[str]) -> list[int]:
    """Every id that ends an answer, by config.json, of which ``_config_ids`` notes, and generation_config.json."""
    ends = _ids(folder, "config.json", "eos", n_vocab, [])
    return list(dict.fromkeys(ends + _ids(folder, "generation_config.json", "eos", n_vocab, notes)))


def _add_other_ends(ids: dict[str, int], ends: list[int], tokens: Sequence[bytes], notes: list[str]) -> None:
    """GGUF has one EOS; two further ends of an answer have keys, EOT and EOM."""
    if "eos" not in ids and ends:
        ids["eos"] = ends[0]
    others = sorted((i for i in ends if i != ids["eos"]), key=lambda i: b"eom" in tokens[i]) if ends else []
    for i in others:
        kinds = ("eom", "eot") if b"eom" in tokens[i] else ("eot", "eom")
        free = next((kind for kind in kinds if kind not in ids), None)
        if free is not None:
            ids[free] = i
        else:
            text = tokens[i].decode("utf-8", "replace")
            notes.append(f"the token {i} ({shown(text)}) ends an answer too; llama.cpp knows it only if its text tells")


def _said_flags(path: Path, config: Mapping[str, Any]) -> dict[str, bool]:
    """add_bos_token and add_eos_token of tokenizer_config.json, which count where there is no tokenizer.json."""
    flags = {}
    for kind in ("bos", "eos"):
        said = config.get(f"add_{kind}_token")
        if said is not None and not isinstance(said, bool):
            raise ModelFileError(f"{path}: add_{kind}_token is {shown(said)}, expected true or false")
        if said is not None:
            flags[kind] = said
    return flags


def _check_flags(config: Mapping[str, Any], around: _Around, notes: list[str]) -> None:
    for kind, text in (("bos", around.before), ("eos", around.behind)):
        said = config.get(f"add_{kind}_token")
        if isinstance(said, bool) and said != (text is not None):
            adds = "none" if text is None else shown(text)
            notes.append(
                f"tokenizer_config.json: add_{kind}_token is {str(said).lower()}, the post-processor of tokenizer.json "
                f"adds {adds}: the latter counts"
            )


def _around(path: Path, processor: Any) -> _Around:
    """What a post_processor adds to a single text."""
    around = _Around()
    for step in _steps(path, processor):
        kind = step.get("type")
        if kind == "TemplateProcessing":
            if around != _Around():
                raise UnsupportedModelError(f"{path}: the post-processor adds tokens in two steps; one is converted")
            around = _template(path, step)
        elif kind != "ByteLevel":  # which moves offsets only
            raise UnsupportedModelError(f"{path}: the post-processor has a step {shown(kind)}; a template is converted")
    return around


def _steps(path: Path, processor: Any) -> list[dict[str, Any]]:
    if processor is None:
        return []
    if not isinstance(processor, dict):
        raise ModelFileError(f"{path}: post_processor is {shown(processor)}, expected an object")
    steps = processor.get("processors") if processor.get("type") == "Sequence" else [processor]
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise ModelFileError(f"{path}: the steps of post_processor are {shown(steps)}, expected a list of objects")
    return steps


def _template(path: Path, step: Mapping[str, Any]) -> _Around:
    """The single template: at most one token on each side of the text."""
    parts = step.get("single")
    if not isinstance(parts, list):
        raise ModelFileError(f"{path}: the post-processor's template is {shown(parts)}, expected a list")
    before: list[str] = []
    behind: list[str] = []
    side = before
    for part in parts:
        if isinstance(part, dict) and isinstance(part.get("Sequence"), dict):
            side = behind
            continue
        token = part.get("SpecialToken") if isinstance(part, dict) else None
        text = token.get("id") if isinstance(token, dict) else None
        if not isinstance(text, str):
            raise ModelFileError(f"{path}: the post-processor's template holds {shown(part)}")
        side.append(text)
    if len(before) > 1 or len(behind) > 1:
        raise UnsupportedModelError(
            f"{path}: the post-processor puts {_tokens(before)} before a text and "
            f"{_tokens(behind)} behind it; a GGUF file can say one token on each side"
        )
    return _Around(before[0] if before else None, behind[0] if behind else None)


def _tokens(texts: list[str]) -> str:
    return shown(" ".join(texts)) if texts else "nothing"


def vocab_table(path: Path, vocab: Any) -> dict[str, int]:
    """model.vocab of a tokenizer.json: the id of each token."""
    if not isinstance(vocab, dict) or not all(
        isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in vocab.values()
    ):
        raise ModelFileError(f"{path}: model.vocab is no table of token ids")
    return vocab


def looks_special(token: str) -> bool:
    """Whether a token is a control token by its look, where a tokenizer forgot to say so."""
    if token in ("<pad>", "<mask>", "<2mass>", "[@BOS@]"):
        return True
    brackets = (("<|", "|>"), ("<\uff5c", "\uff5c>"), ("<unused", ">"))
    return any(token.startswith(left) and token.endswith(right) for left, right in brackets)


def refuse_duplicates(path: Path, tokens: Sequence[bytes]) -> None:
    """Raises when two ids have one text: a text has one id."""
    seen: dict[bytes, int] = {}
    for i, token in enumerate(tokens):
        if token in seen:
            raise ModelFileError(
                f"{path}: the tokens {seen[token]} and {i} are both {shown(token.decode('utf-8', 'replace'))}"
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


def name_an_end(ids: dict[str, int], tokens: Sequence[bytes], types: Sequence[int], notes: list[str]) -> None:
    """A vocabulary without EOS: GGUF has no word for that, llama.cpp would take one by number.

    The stand-in is a token that no text has: else the model's answer would end at an ordinary word.
    """
    if "eos" in ids:
        return
    for wanted in (TokenType.UNUSED, TokenType.CONTROL, TokenType.UNKNOWN):
        found = next((i for i, kind in enumerate(types) if kind == wanted and i != ids.get("bos")), None)
        if found is not None:
            ids["eos"] = found
            text = tokens[found].decode("utf-8", "replace")
            notes.append(
                f"no file names an EOS token: {found} ({shown(text)}) stands for it, so that no word ends an answer"
            )
            return
    notes.append("no file names an EOS token, and the vocabulary has none: answers end at llama.cpp's own choice")
