"""A converted vocabulary is tried before weights are written.

Owns the trial: the vocabulary alone becomes a small file, the loader's checks and llama.cpp open it, and texts are
split with it and with the original's own library. What neither the file's rules nor ours foresaw shows here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import gguf

from lazygguf.errors import LazyError, UnsupportedModelError

from ..plan import ModelPlan, Original, add_vocab

if TYPE_CHECKING:
    from lazygguf.text.tokenizer import Tokenizer

TEXTS = (
    "Hello world",
    "The quick brown fox doesn't jump; it'll wait, they've said: \"OK\"?!",
    "two  spaces, three   spaces,\ttabs\t\tand\n\nempty lines\r\n",
    "def f(x):\n    return [x ** 2 for _ in range(10)]  # 3.14159, 0xFF\n",
    "1 22 333 4444 1234567890",
    "UPPER lower MiXed camelCase snake_case kebab-case",
    "na\u00efve caf\u00e9 \u00fcber stra\u00dfe \u041f\u0440\u0438\u0432\u0435\u0442 \u03b3\u03b5\u03b9\u03ac",
    "\u6211\u60f3\u5728\u82f9\u679c\u5de5\u4f5c\u3002 \u65e5\u672c\u8a9e \ud55c\uad6d\uc5b4",
    "\U0001f680 and \U0001f44d\U0001f3fd, \u2013 \u201cquoted\u201d \u2026 \u20ac5",
    "https://example.org/a/b?c=d&e=%20f",
    "".join(str(n) + n * " " for n in range(1, 40)),
    "aaaaaaaaaa bbbbbbbb ------- ======= ......",
    "a",
)
SPACE_FIRST = (" leading space", "  two", "\n\nlines first", " ", "   ")


def try_vocab(plan: ModelPlan) -> None:
    """Raises unless llama.cpp loads the plan's vocabulary and splits text with it as the original does.

    Raises:
        ModelFileError: The vocabulary is none that llama.cpp can load.
        UnsupportedModelError: A text is split otherwise.
    """
    from lazygguf._ffi import NativeFile
    from lazygguf.text.tokenizer import Tokenizer

    with tempfile.TemporaryDirectory(prefix="lazygguf-vocab-") as folder:
        path = Path(folder) / "vocab.gguf"
        try:
            _write_vocab(path, plan)
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}, where the vocabulary is tried", folder) from error
        try:
            with NativeFile(str(path)) as file:
                file.check_vocab()
            tokenizer = Tokenizer(str(path))
        except LazyError as error:
            raise type(error)(str(error).replace(str(path), str(plan.source))) from error
        try:
            original = plan.vocab.original
            if original is not None:
                _compare(tokenizer, original)
        finally:
            tokenizer.close()


def _write_vocab(path: Path, plan: ModelPlan) -> None:
    writer = gguf.GGUFWriter(path=path, arch=plan.hparams.arch)
    try:
        add_vocab(writer, plan.vocab)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()


def _texts(original: Original) -> Iterator[str]:
    yield from TEXTS
    if original.with_space_first:
        yield from SPACE_FIRST


def _compare(tokenizer: Tokenizer, original: Original) -> None:
    for text in _texts(original):
        ours = tokenizer.tokenize(text.encode(), add_bos=False, special=original.with_control)
        theirs = original.encode(text)
        if ours != theirs:
            raise UnsupportedModelError(
                f"{original.path}: llama.cpp splits {text!r} into {_shown(ours)}, this tokenizer into "
                f"{_shown(theirs)}; something in the file is not known here, so it is not converted"
            )


def _shown(ids: list[int]) -> str:
    return str(ids) if len(ids) <= 12 else f"{ids[:12]}... ({len(ids)})"
