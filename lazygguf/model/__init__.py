"""``LazyModel``: its options, what they open, and the model that answers."""
