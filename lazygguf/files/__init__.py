"""What is in a model file without its weights: size, fingerprint, and the profiles that ship for it."""
