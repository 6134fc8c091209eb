"""Reading tokens into a session: prompts, prefix reuse, statistics, attention, scores."""
