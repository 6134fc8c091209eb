"""Stored tensors of a checkpoint: safetensors files, and pickles read without running them."""
