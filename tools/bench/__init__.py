"""``lazygguf bench``: reading and answering, dense and pruned, beside llama.cpp."""
