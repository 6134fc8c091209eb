"""The same files as llama.cpp's converter makes, where that converter can run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from convert.compare_convert_hf import CASES, compare
from convert.tiny_checkpoints import Spec, write_hf

SCRIPT = os.environ.get("LAZYGGUF_CONVERT_HF")
PYTHON = os.environ.get("LAZYGGUF_CONVERT_HF_PYTHON", sys.executable)


@pytest.mark.skipif(not SCRIPT, reason="LAZYGGUF_CONVERT_HF does not name llama.cpp's convert_hf_to_gguf.py")
@pytest.mark.parametrize(("name", "spec", "tokenizer", "dtype", "outtype"), CASES, ids=[case[0] for case in CASES])
def test_llama_cpp_converts_the_folder_to_the_same_tensors_and_tokenizer(
    name: str, spec: Spec, tokenizer: str, dtype: str, outtype: str, tmp_path: Path
) -> None:
    folder = write_hf(tmp_path / name, spec, dtype=dtype, tokenizer=tokenizer)
    found, _ = compare(Path(str(SCRIPT)), PYTHON, folder, outtype, tmp_path)
    assert found == []
