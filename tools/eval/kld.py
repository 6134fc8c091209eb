"""KL divergence of continuation tokens against the dense run of the same model.

Owns the ``kld`` task (plain text, then 64 tokens of the same text, teacher-forced) and its numbers, which have the
names and meaning of ``llama-perplexity --kl-divergence``: over the whole vocabulary, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lazygguf.generate.loop import Logits, log_softmax
from lazygguf.text.tokenizer import encode_text

from .prompts import KLD, Haystack, Prompter, Question, TaskPrompt, depth_of

N_CONTINUATION = 64


@dataclass(frozen=True)
class Divergence:
    """Per continuation token: KL(base || this), -ln p of the token under both, and whether both prefer the same."""

    kld: list[float]
    nll: list[float]
    nll_base: list[float]
    same_top: list[bool]


def compare(base: Iterable[Logits], given: Iterable[Logits], tokens: Sequence[int]) -> Divergence:
    """Compares logits token by token.

    Args:
        base: of the dense run, one (n_vocab,) for each token.
        given: of the run under test, likewise.
        tokens: the tokens that really follow.
    """
    out = Divergence([], [], [], [])
    for p_logits, q_logits, token in zip(base, given, tokens):
        log_p, log_q = log_softmax(p_logits), log_softmax(q_logits)
        out.kld.append(float((np.exp(log_p) * (log_p - log_q)).sum()))
        out.nll.append(float(-log_q[token]))
        out.nll_base.append(float(-log_p[token]))
        out.same_top.append(bool(log_p.argmax() == log_q.argmax()))
    return out


def summarize(parts: Sequence[Divergence]) -> dict[str, float]:
    """The figures over all tokens of several samples."""
    kld = np.array([value for part in parts for value in part.kld])
    nll = float(np.mean([value for part in parts for value in part.nll]))
    nll_base = float(np.mean([value for part in parts for value in part.nll_base]))
    return {
        "n_tokens": kld.size,
        "kld_mean": float(kld.mean()),
        "kld_median": float(np.median(kld)),
        "kld_99": float(np.percentile(kld, 99)),
        "kld_max": float(kld.max()),
        "same_top": float(np.mean([value for part in parts for value in part.same_top])),
        "ppl": math.exp(nll),
        "ppl_base": math.exp(nll_base),
        "ppl_ratio": math.exp(nll - nll_base),
    }


class KldSource:
    """Pieces of the haystack's text as prompts (``prompts.Source``)."""

    task = KLD

    def __init__(self, n_questions: int, seed: int, length: int, haystack: Haystack, prompter: Prompter) -> None:
        """Raises ValueError when the text is shorter than a prompt and its continuation."""
        self.n_questions, self._seed, self._length = n_questions, seed, length
        tokenizer = prompter.tokenizer
        self._text = tokenizer.tokenize(encode_text(haystack.text), add_bos=False, special=False)
        self._bos = [tokenizer.token_bos()] if tokenizer.add_bos and tokenizer.token_bos() >= 0 else []
        needed = length + N_CONTINUATION
        if len(self._text) < needed:
            raise ValueError(
                f"--length {length}, task {KLD}: {haystack.name} has {len(self._text)} tokens, {needed} are needed "
                "(-f with a longer text)"
            )

    def question(self, index: int) -> Question:
        """The text from a place that the index decides."""
        n_text = self._length - len(self._bos)
        begin = (len(self._text) - n_text - N_CONTINUATION) * depth_of(self._seed, index) // 100
        end = begin + n_text
        return Question(
            task=KLD,
            length=str(self._length),
            index=index,
            prompt=TaskPrompt((*self._bos, *self._text[begin:end]), max_tokens=N_CONTINUATION),
            references=(),
            score=lambda pred: 0.0,
            continuation=tuple(self._text[end : end + N_CONTINUATION]),
        )
