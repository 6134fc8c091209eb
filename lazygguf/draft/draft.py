"""A draft model: it reads a prompt before the large model does and scores how much each token matters to the question.

Owns the draft's weights and vocabulary, its scoring profile, and how attention over its own tokens becomes scores of
another vocabulary's tokens. What is done with the scores is ``reader.py``'s.

The draft reads densely up to its last scoring layer and no further, and computes no logits. What it read stays in its
cache while the prompt fits into its context, so that it has to read only the next question. A prompt that took several
windows leaves nothing in the cache, since no later window begins as the last one did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from .._ffi import NativeModel, ProgressCallback
from ..files.model_file import ModelFile, ModelSize
from ..read.attention import AttentionReader
from ..read.scores import Scores, pooled
from ..read.session import DraftCache
from ..schedule.keep_schedule import DEFAULT_QUERY
from ..schedule.scoring import MAX, ScoringProfile
from ..text.markup import Markup
from ..text.offsets import Spans, shared_max, token_spans, tokens_over
from ..text.prompt_text import PromptText, PromptTexts
from ..text.tokenizer import Tokenizer
from .windows import Window, plan_windows

MIN_CTX = 512  # the question, its template and text beside them


@dataclass(frozen=True)
class DraftModel:
    """An open draft model; several drafts can read with it.

    Attributes:
        weights, tokenizer: of the model.
        profile: how it scores.
        file: the one that it was opened from.
        n_ctx: most tokens of a reading; 0 is the length it was trained with.
        is_ours: closing it frees the weights; else they belong to a ``LazyModel``.
    """

    weights: NativeModel
    tokenizer: Tokenizer
    profile: ScoringProfile
    file: ModelFile
    n_ctx: int = 0
    is_ours: bool = True

    def close(self) -> None:
        """Frees the weights if they are ours. RuntimeError while a draft reads with them."""
        if self.is_ours:
            self.tokenizer.close()
            self.weights.close()


@dataclass(frozen=True)
class DraftScores:
    """A draft's scores of a prompt.

    Attributes:
        scores: (n_tokens,) of the large model's tokens, higher matters more; NaN where the draft saw none of a token.
        text: the prompt as it read it.
        n_read: tokens it computed.
        n_windows: readings it took.
    """

    scores: Scores
    text: PromptText
    n_read: int
    n_windows: int


class Draft:
    """Scores the prompts of one large model's vocabulary. One thread at a time; ``cancel`` may come from any.

    Args:
        model: the draft.
        target: the large model's vocabulary.
        n_threads: threads; all may be used, since the large model waits meanwhile.
        n_ubatch: tokens computed at once.

    Raises:
        ValueError: the draft's context is too short.
        MemoryError: its caches do not fit.
    """

    def __init__(self, model: DraftModel, target: Tokenizer, n_threads: int = 1, n_ubatch: int = 512) -> None:
        self._model = model
        self._profile = model.profile
        self._texts = PromptTexts(target, self._knows)
        self._markup = Markup(model.tokenizer)
        self._pieces: dict[int, bytes] = {}  # its own tokens' bytes, as far as it has met them
        n_layer = self._profile.n_layer
        self._reader = AttentionReader(
            model.weights, n_layer, n_ctx=model.n_ctx, n_ubatch=n_ubatch, n_threads=n_threads
        )
        if self._reader.n_ctx < MIN_CTX:
            n_ctx = self._reader.n_ctx
            self._reader.close()
            raise ValueError(f"the draft's context is {n_ctx} tokens, expected at least {MIN_CTX}")

    def score(
        self,
        ids: Sequence[int],
        query_span: Optional[tuple[int, int]] = None,
        progress: Optional[ProgressCallback] = None,
    ) -> DraftScores:
        """Reads a prompt and scores its tokens.

        Args:
            ids: the whole context of the large model, (n_tokens,).
            query_span: positions [begin, end) of the question; None: the last tokens ask.
            progress: called with tokens read and tokens to read, in the draft's own tokens; what it raises is raised
                here and leaves what was read before.
        """
        text = self._texts.text(ids)
        own, spans = self._own_tokens(text)
        if not own:
            return DraftScores(np.full(len(ids), np.nan, np.float32), text, 0, 0)
        windows = plan_windows(len(own), self._question(spans, text, query_span), self._reader.n_ctx)
        values, n_read = self._read(own, windows, progress)
        return DraftScores(shared_max(values, spans, text.spans), text, n_read, len(windows))

    def cost(self, n_read: int, target: ModelSize) -> float:
        """Its work of reading ``n_read`` tokens, in tokens that all layers of the large model read."""
        return n_read * self._model.file.size.work(self._profile.n_layer) / target.work()

    def cache(self) -> DraftCache:
        """What it has read, and what another draft must have in common with it to go on from there."""
        origin = {"weights_id": self._model.file.weights_id, "n_layer": self._reader.n_layer}
        return DraftCache(origin, self._reader)

    def cancel(self) -> None:
        """Stops the reading under way, from any thread; it raises Cancelled."""
        self._reader.cancel()

    def reset(self) -> None:
        """Forgets what was read."""
        self._reader.reset()

    def close(self) -> None:
        """Frees the caches; the model stays open."""
        self._reader.close()

    def _knows(self, text: bytes) -> bool:
        """Is the text of a control token one of the draft's control tokens too?"""
        ids = self._model.tokenizer.tokenize(text, add_bos=False, special=True)
        return len(ids) == 1 and not self._model.tokenizer.piece(ids[0])

    def _own_tokens(self, text: PromptText) -> tuple[list[int], Spans]:
        """What is a control token of the large model's may be one of the draft's; what is text there is text here."""
        tokenizer = self._model.tokenizer
        ids = self._markup.tokenize_only(text.data, text.markup)
        for token in set(ids) - self._pieces.keys():
            self._pieces[token] = tokenizer.piece(token, special=True)
        spans = token_spans(text.data, [self._pieces[token] for token in ids])
        bos = tokenizer.token_bos()
        if tokenizer.add_bos and ids and ids[0] != bos:
            return [bos, *ids], np.concatenate([np.zeros((1, 2), np.int64), spans])
        return ids, spans

    def _question(self, spans: Spans, text: PromptText, query_span: Optional[tuple[int, int]]) -> tuple[int, int]:
        """The draft's tokens that ask."""
        n_tokens = len(spans)
        first, last = max(0, n_tokens - DEFAULT_QUERY), n_tokens
        if query_span is not None:
            begin, end = int(text.spans[query_span[0], 0]), int(text.spans[query_span[1] - 1, 1])
            found = tokens_over(spans, begin, end)
            first, last = found if found[0] < found[1] else (first, last)
        return max(first, last - self._profile.max_query), last

    def _read(
        self, ids: Sequence[int], windows: Sequence[Window], progress: Optional[ProgressCallback]
    ) -> tuple[Scores, int]:
        """Scores of the draft's own tokens, the best over the windows, and how many tokens were computed."""
        scores = np.full(len(ids), -np.inf, np.float32)
        n_all, n_before, n_read = sum(len(window.positions) for window in windows), 0, 0
        for window in windows:
            if len(windows) > 1:
                self._reader.reset()
            shift = _shifted(progress, n_before, n_all)
            np.maximum.at(
                scores, window.positions, self._score_window([ids[i] for i in window.positions], window, shift)
            )
            n_before += len(window.positions)
            n_read += self._reader.n_read
        if len(windows) > 1:
            self._reader.reset()
        return scores, n_read

    def _score_window(self, ids: list[int], window: Window, progress: Optional[ProgressCallback]) -> Scores:
        """(n_tokens,) by the profile: mean over heads, over the asking tokens, best layer, averaged over neighbours."""
        profile = self._profile
        by_head, by_query = profile.heads is not None, profile.over_query == MAX
        attention = self._reader.read(
            ids, window.query, profile.layers, by_head=by_head, by_query=by_query, progress=progress
        )
        if profile.heads is not None:  # (n_layers, n_query, n_head, n_tokens)
            wanted = [list(profile.heads.get(il, range(attention.shape[2]))) for il in profile.layers]
            attention = np.stack([layer[:, heads].mean(axis=1) for layer, heads in zip(attention, wanted)])
        if by_query:  # (n_layers, n_query, n_tokens)
            attention = attention.max(axis=1)
        elif by_head:
            attention = attention.mean(axis=1)
        best = np.asarray(attention.max(axis=0), np.float32)
        return pooled(best, *profile.around).astype(np.float32)


def _shifted(progress: Optional[ProgressCallback], n_before: int, n_all: int) -> Optional[ProgressCallback]:
    """Progress of one window as that of all: what the window has already counts as read."""
    if progress is None:
        return None
    return lambda n_done, n_total: progress(n_before + n_done, max(n_all, n_before + n_total))
