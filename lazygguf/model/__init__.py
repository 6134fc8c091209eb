"""``LazyModel``: its options, the parts they open, and its public calls."""
