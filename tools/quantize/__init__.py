"""``lazygguf quantize``: a GGUF file becomes a smaller one."""
