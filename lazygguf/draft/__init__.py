"""The draft: a small model that reads first; its attention becomes scores, by which the large model reads."""
