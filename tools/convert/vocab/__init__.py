"""Vocabularies of a checkpoint: SentencePiece, BPE of tokenizer.json, tiktoken."""
