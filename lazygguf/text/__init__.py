"""Text and tokens: tokenizer, chat templates, byte spans, grammars, and text that comes piece by piece."""
