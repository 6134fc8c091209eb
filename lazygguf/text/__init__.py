"""Text and tokens: tokenizer, chat templates, byte spans, grammars, streamed text."""
