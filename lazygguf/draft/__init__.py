"""A small model reads first: its attention becomes scores, which say what the large model reads."""
