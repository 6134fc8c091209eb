#!/usr/bin/env bash
# A folder that has its chat template both in chat_template.jinja and in tokenizer_config.json: transformers takes the
# first, gguf-py the second. transformers 5 saves only the first; a folder of before to which a corrected
# chat_template.jinja was added has both.
#
# Package: transformers 5.24.0, gguf 0.19.0.
# Seen:    2026-11, Linux x86-64.
# Matters: the GGUF file of such a folder can talk to the model in its old template.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --only-binary :all: transformers==5.24.0 tokenizers==0.23.3 gguf==0.19.0 numpy==2.4.6
cd "$dir"
HF_HUB_OFFLINE=1 venv/bin/python - <<'PYTHON'
import json
from pathlib import Path

import gguf
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

folder = Path("model")
vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4, "ab": 5}
bpe = Tokenizer(models.BPE(vocab=vocab, merges=[("a", "b")], unk_token="<unk>"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
tokenizer.chat_template = "new {{ messages[0].content }}"
tokenizer.save_pretrained(folder)

config_path = folder / "tokenizer_config.json"
config = json.loads(config_path.read_text())
assert "chat_template" not in config and (folder / "chat_template.jinja").is_file(), "transformers 5 saves one file"
config_path.write_text(json.dumps({**config, "chat_template": "old {{ messages[0].content }}"}))

by_transformers = AutoTokenizer.from_pretrained(folder).chat_template
by_gguf = gguf.SpecialVocab(folder).chat_template
print(f"transformers takes {by_transformers!r}")
print(f"gguf-py takes      {by_gguf!r}")
assert by_transformers.startswith("new") and by_gguf.startswith("old")
PYTHON
