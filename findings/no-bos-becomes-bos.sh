#!/usr/bin/env bash
# A tokenizer.json that puts nothing before a text: gguf-py's SpecialVocab writes no tokenizer.ggml.add_bos_token for it
# (it writes True where a BOS stands in the template, and nothing where none does), and llama.cpp takes the missing key
# of a "llama" vocabulary for True. So the GGUF file puts a BOS where the model had none.
#
# Package: transformers 5.24.0, gguf 0.19.0, llama-cpp-python 0.3.36 (pip compiles it, about 5 minutes on 2 cores, and
#          keeps the result).
# Seen:    2026-11, Linux x86-64, with a tokenizer that transformers 5 makes and saves without a BOS.
# Matters: one token too many at the begin of every prompt, which some models answer worse to.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq transformers==5.24.0 tokenizers==0.23.3 gguf==0.19.0 llama-cpp-python==0.3.36 \
  numpy==2.4.6
cd "$dir"
HF_HUB_OFFLINE=1 venv/bin/python - 2> log <<'PYTHON' || { tail log; exit 1; }
from pathlib import Path

import gguf
from llama_cpp import Llama
from transformers import LlamaTokenizer

SPACE = "\u2581"
pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), SPACE, "a", "b", "ab"]
tokenizer = LlamaTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[("a", "b")])
tokenizer.save_pretrained("model")


def write_vocab(add_bos):
    """The folder's vocabulary in a file, by gguf-py; add_bos None: only what it finds itself."""
    vocab, special = gguf.LlamaHfVocab(Path("model")), gguf.SpecialVocab("model")
    tokens, scores, types = zip(*vocab.all_tokens())
    writer = gguf.GGUFWriter("vocab.gguf", "llama")
    writer.add_tokenizer_model(vocab.tokenizer_model)
    writer.add_token_list(list(tokens))
    writer.add_token_scores(list(scores))
    writer.add_token_types([int(kind) for kind in types])
    special.add_to_gguf(writer, quiet=True)
    if add_bos is not None:
        writer.add_add_bos_token(add_bos)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return vocab.tokenizer_model, special.add_special_token


kind, found = write_vocab(None)
from_folder = tokenizer("ab")["input_ids"]
from_file = Llama("vocab.gguf", vocab_only=True, verbose=False).tokenize(b"ab")
print(f"transformers: {from_folder}; gguf-py finds {found}, kind {kind!r}; llama.cpp then: {from_file}")
assert kind == "llama" and found == {} and from_file == [1, *from_folder]
write_vocab(False)
from_file = Llama("vocab.gguf", vocab_only=True, verbose=False).tokenize(b"ab")
print(f"with add_bos_token False in the file: {from_file}")
assert from_file == from_folder
PYTHON
