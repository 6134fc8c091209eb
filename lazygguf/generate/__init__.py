"""From logits to an answer: the token loop, llama.cpp's samplers, results shaped as OpenAI's."""
