"""``lazygguf calibrate``: the cheapest keep schedule that keeps a model's answers."""
