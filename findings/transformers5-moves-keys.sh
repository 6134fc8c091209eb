#!/usr/bin/env bash
# transformers 5 reads a folder of before and saves it under other names: rope_theta and rope_scaling of config.json are
# inside rope_parameters, torch_dtype is dtype, and the added tokens, in added_tokens_decoder of tokenizer_config.json
# and in special_tokens_map.json until then, stand in tokenizer.json only.
#
# Package: transformers 5.24.0, tokenizers 0.23.3.
# Seen:    2026-11, Linux x86-64.
# Matters: a converter that reads config.get("rope_theta", 10000) gives a model with rope_theta 500000 the base 10000,
#          without an error; one that takes added tokens from tokenizer_config.json misses them.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --only-binary :all: transformers==5.24.0 tokenizers==0.23.3
cd "$dir"
HF_HUB_OFFLINE=1 venv/bin/python - <<'PYTHON'
import json
from pathlib import Path

from tokenizers import Tokenizer, models
from transformers import AutoConfig, AutoTokenizer

before, after = Path("before"), Path("after")
before.mkdir()
SCALING = {"rope_type": "linear", "factor": 4.0}
config = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4,
    "vocab_size": 5, "torch_dtype": "bfloat16", "rope_theta": 500000.0, "rope_scaling": SCALING,
}  # fmt: skip
(before / "config.json").write_text(json.dumps(config))
Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "ab": 2}, merges=[("a", "b")])).save(str(before / "tokenizer.json"))
FLAGS = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
decoder = {"3": {"content": "<|im_end|>", **FLAGS}, "4": {"content": "<tool>", **FLAGS, "special": False}}
names = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "added_tokens_decoder": decoder}
(before / "tokenizer_config.json").write_text(json.dumps(names))

AutoConfig.from_pretrained(before).save_pretrained(after)
AutoTokenizer.from_pretrained(before).save_pretrained(after)
files = {path.name: json.loads(path.read_text()) for path in after.glob("*.json")}
print("files:", ", ".join(sorted(files)))
assert sorted(files) == ["config.json", "tokenizer.json", "tokenizer_config.json"]

saved = files["config.json"]
rope = {key: value for key, value in saved.items() if "rope" in key}
print("rope keys of config.json:", rope, "; dtype:", saved.get("dtype"))
assert rope == {"rope_parameters": {**SCALING, "rope_theta": 500000.0}}
assert saved["dtype"] == "bfloat16" and "torch_dtype" not in saved

added = {token["content"]: token["id"] for token in files["tokenizer.json"]["added_tokens"]}
print("added tokens of tokenizer.json:", added, "; of tokenizer_config.json:", sorted(files["tokenizer_config.json"]))
assert added == {"<|im_end|>": 3, "<tool>": 4}
assert "added_tokens_decoder" not in files["tokenizer_config.json"]
PYTHON
