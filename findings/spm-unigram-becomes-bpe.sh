#!/usr/bin/env bash
# gguf-py's SentencePieceVocab takes a unigram tokenizer.model and names its kind "llama", as it does for a BPE one.
# llama.cpp reads "llama" as BPE by scores and cuts most words otherwise than sentencepiece does. With a BPE model both
# cut alike.
#
# Package: gguf 0.19.0, sentencepiece 0.2.3, llama-cpp-python 0.3.36 (pip compiles it, about 5 minutes on 2 cores, and
#          keeps the result).
# Seen:    2026-11, Linux x86-64: 19 of 25 texts differ.
# Matters: a model converted so loads, runs and answers badly, with no error anywhere. Whether tokenizer.model is BPE
#          has to be asked before its pieces are written.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install -qq gguf==0.19.0 sentencepiece==0.2.3 llama-cpp-python==0.3.36 numpy==2.4.6
cd "$dir"
venv/bin/python - 2> log <<'PYTHON' || { tail log; exit 1; }
from pathlib import Path

import gguf
import sentencepiece
from llama_cpp import Llama

LINES = [
    "the lower the newer the widest the lowest of the lot",
    "a newer letter is lower than the tallest letter",
    "the lot of the letters is the oldest of the lot",
    "hold the letter older than the newest one",
    "one of the oldest letters told the tale of the lot",
]
TEXTS = [*sorted({word for line in LINES for word in line.split()}), *LINES]


def train(kind):
    """A small tokenizer.model with byte fallback."""
    folder = Path(kind)
    folder.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 40), model_prefix=str(folder / "tokenizer"), model_type=kind, vocab_size=320,
        hard_vocab_limit=False, byte_fallback=True, num_threads=1, minloglevel=2,
    )  # fmt: skip
    return folder


def write_vocab(folder):
    """The model as a vocabulary file of llama.cpp, by gguf-py's own class for it."""
    vocab = gguf.SentencePieceVocab(folder)
    tokens, scores, types = zip(*vocab.all_tokens())
    writer = gguf.GGUFWriter(folder / "vocab.gguf", "llama")
    writer.add_tokenizer_model(vocab.tokenizer_model)
    writer.add_token_list(list(tokens))
    writer.add_token_scores(list(scores))
    writer.add_token_types([int(kind) for kind in types])
    writer.add_add_bos_token(False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return vocab.tokenizer_model


for kind in ("bpe", "unigram"):
    folder = train(kind)
    name = write_vocab(folder)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    ours = Llama(str(folder / "vocab.gguf"), vocab_only=True, verbose=False)
    cut = {text: (theirs.encode(text), ours.tokenize(text.encode())) for text in TEXTS}
    differ = [text for text, (sp, cpp) in cut.items() if sp != cpp]
    print(f"{kind}: gguf-py calls it {name!r}; {len(differ)} of {len(TEXTS)} texts differ")
    assert name == "llama"
    if kind == "bpe":
        assert not differ
    else:
        assert len(differ) > len(TEXTS) / 2
        for sp in cut["letters"]:
            print("  letters:", [theirs.id_to_piece(i) for i in sp])
PYTHON
