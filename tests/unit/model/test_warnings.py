"""What is only worth a warning: the model loads, and the log says what was not right."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from tiny_gguf import TinyConfig, write_tiny_gguf

from lazygguf import LazyModel

SPECIAL = ("bos", "eos", "eot", "eom", "unknown", "padding", "seperator", "mask", "fim_pre", "middle")


@pytest.mark.parametrize("name", SPECIAL)
def test_a_special_id_outside_the_vocabulary_is_a_warning_that_names_it(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def change(kv: dict[str, Any], tensors: dict[str, Any]) -> None:
        kv[f"tokenizer.ggml.{name}_token_id"] = kv["tokenizer.ggml.eos_token_id"]._replace(value=999_999)

    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path, TinyConfig(), overrides=change)
    with caplog.at_level(logging.WARNING, "lazygguf"), LazyModel(path, n_threads=1) as model:
        assert model.n_vocab() == TinyConfig().n_vocab
    assert f"the file's {name}_token_id is 999999, outside the vocabulary of 320 tokens: ignored" in caplog.text
