"""``lazygguf convert``: a Hugging Face or Meta checkpoint becomes a GGUF file."""
