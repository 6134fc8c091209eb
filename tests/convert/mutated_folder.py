"""Checkpoint folders with one or a few faults, made from a seed.

Owns the faults: values of every JSON file replaced or taken out, bytes of every file changed, files missing or of
another kind. What a conversion must come to: a file that the loader takes, or one line that says what is wrong.
"""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

from convert.test_vocab import spm_as_json
from convert.tiny_checkpoints import Spec, added_token, spm_model, write_hf, write_json

SMALL = Spec(n_vocab=405, n_embd=32, n_layer=1, n_head=2, n_head_kv=1, n_ff=32)
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 0.5, 1e308, -1e-320, float("nan"), float("inf"), "",
    "x", "\ud800",
    "\u0000", "a\nb", "\u2581", "<s>", [], [1], ["a", "b"], [None], [[]], {}, {"type": "Sequence"}, {"a": {"b": []}},
    {"type": 5}, {"content": 7}, {"type": "NFC"}, [{"type": "Split"}], "y" * 5000,
]  # fmt: skip


def write_folders(parent: Path) -> list[Path]:
    """The whole folders that the faults are put into."""
    spm = write_hf(parent / "spm", SMALL, tokenizer="")
    (spm / "tokenizer.model").write_bytes(spm_model(400))
    write_json(spm / "added_tokens.json", {"<|im_end|>": 401})
    decoder = {str(i): {"content": text, "special": True} for i, text in enumerate(["<unk>", "<s>", "</s>"])}
    write_json(spm / "tokenizer_config.json", {"add_bos_token": True, "added_tokens_decoder": decoder})
    fast = write_hf(parent / "fast", SMALL, tokenizer="", n_shards=2)
    tokenizer = spm_as_json(400)
    tokenizer["added_tokens"].append(added_token(401, "<|im_end|>"))
    write_json(fast / "tokenizer.json", tokenizer)
    names = {
        "bos_token": "<s>",
        "eos_token": {"content": "<|im_end|>"},
        "add_prefix_space": True,
        "add_bos_token": True,
    }
    templates = [{"name": "default", "template": "x"}, {"name": "tools", "template": "y"}]
    write_json(fast / "tokenizer_config.json", {**names, "chat_template": templates})
    write_json(fast / "generation_config.json", {"eos_token_id": [2, 401], "temperature": 0.6, "top_k": 20})
    bpe = write_hf(parent / "bpe", replace(SMALL, arch="qwen2"), tokenizer="qwen2", form="bin")
    (bpe / "chat_template.jinja").write_text("{{ messages }}")
    (bpe / "README.md").write_text("---\nlicense: mit\nlanguage: [en]\ntags: [a, b]\n---\n# Model\n")
    write_json(bpe / "special_tokens_map.json", {"pad_token": {"content": "<|endoftext|>"}})
    return [spm, fast, bpe]


def mutate(folder: Path, rng: random.Random) -> str:
    """Puts one to three faults into a folder; returns what was done."""
    done = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        fault: Callable[[Path, random.Random], str] = rng.choice([_json_value] * 6 + [_bytes] * 2 + [_file])
        done.append(fault(folder, rng))
    return "; ".join(done)


def copy(folder: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    return target


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value, of long tables and lists the first ones."""
    found = [path]
    items = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    for key, inner in items[:25]:
        found += _places(inner, (*path, key))
    return found


def _json_value(folder: Path, rng: random.Random) -> str:
    files = sorted(path for path in folder.glob("*.json") if path.is_file())
    if not files:
        return "nothing"
    path = rng.choice(files)
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return "nothing"
    place = rng.choice(_places(whole))
    value = rng.choice(VALUES)
    if not place or not isinstance(whole, (dict, list)):
        is_table = isinstance(whole, dict) and len(whole) > 0 and rng.random() < 0.7
        whole = {**whole, rng.choice(list(whole)): value} if is_table else value
    else:
        inner = whole
        for key in place[:-1]:
            inner = inner[key]
        if rng.random() < 0.15:
            del inner[place[-1]]
            value = "taken out"
        else:
            inner[place[-1]] = value
    path.write_text(json.dumps(whole), encoding="utf-8")
    return f"{path.name} {place}: {str(value)[:60]!r}"


def _bytes(folder: Path, rng: random.Random) -> str:
    path = rng.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    data = bytearray(path.read_bytes())
    if not data:
        return "nothing"
    kind = rng.choice(["flip", "cut", "insert", "mark"])
    at = rng.randrange(min(len(data), rng.choice([64, 4096, len(data)])))
    if kind == "flip":
        for _ in range(rng.choice([1, 4, 32])):
            data[rng.randrange(at, len(data))] = rng.randrange(256)
    elif kind == "cut":
        del data[at:]
    elif kind == "insert":
        data[at:at] = rng.randbytes(rng.choice([1, 8, 100])) if hasattr(rng, "randbytes") else b"\xff" * 8
    else:
        data[:0] = b"\xef\xbb\xbf"
    path.write_bytes(bytes(data))
    return f"{path.name} {kind} at {at}"


def _file(folder: Path, rng: random.Random) -> str:
    path = rng.choice(sorted(folder.iterdir()))
    if path.is_dir():
        return "nothing"
    kind = rng.choice(["gone", "empty", "a folder"])
    path.unlink()
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "a folder":
        path.mkdir()
    return f"{path.name} {kind}"
