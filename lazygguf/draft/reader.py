"""Reading with a draft: it scores the prompt, and the large model reads the best part, and more if that is not enough.

Owns the order of these steps, when the draft is not worth its time, and how its scores become those of a session. A
later turn takes the same steps: the draft, which still holds the document, reads the new question only, and what its
scores ask for now is read at its old position.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from ..files.model_file import ModelSize
from ..read.prompt import Reading
from ..read.scores import Scores
from ..read.session import DraftCache, Progress, Session
from ..read.stats import Stats, stats_of_steps
from ..schedule.keep_schedule import DEFAULT_QUERY, PruningPoint
from .draft import Draft, DraftScores
from .rules import FirstLook, Mask, Positions, SecondLook, extra_tokens, stale_tokens, wanted_tokens, without_fragments

_MAX_ASKED_AGAIN = 256  # newest tokens that are read again with what a second look found


@dataclass(frozen=True)
class DraftRules:
    """When and how a draft is used for one large model.

    Attributes:
        size: of the large model.
        entry: the pruning point before layer 0; None: all tokens go on.
        min_prompt: contexts below it are read whole, without the draft.
        second_look: when more is read than the draft chose.
        headings: lines whose begin matches are always read.
        dense_unasked: a prompt whose question is not known (plain text to go on with, a question before a long text)
            is read whole.
    """

    size: ModelSize
    entry: Optional[PruningPoint] = None
    min_prompt: int = 0
    second_look: SecondLook = field(default_factory=SecondLook)
    headings: Optional[re.Pattern[bytes]] = None
    dense_unasked: bool = False


class DraftReader:
    """Reads a session's prompts with a draft (a ``read.session.PromptReader``).

    Attributes:
        revives: later questions may bring in what earlier ones left unread. False serves to measure the effect.
    """

    def __init__(self, draft: Draft, rules: DraftRules) -> None:
        self.revives = True
        self._draft = draft
        self._rules = rules

    def read(self, session: Session, reading: Reading, progress: Progress) -> Stats:
        """Reads; on any failure the session is as it was before."""
        begin, prompt = time.perf_counter(), reading.prompt
        note = self._why_not(reading)
        if note is not None:
            session.eval(reading.new, prompt.query_span, progress.read, protect=prompt.protect)
            stats = stats_of_steps([session.stats()], reading.n_past, time.perf_counter() - begin)
            stats.draft_note = note
            return stats
        found = self._draft.score(prompt.ids, prompt.query_span, progress.draft)
        draft_s = time.perf_counter() - begin
        scores = self._session_scores(found, reading)
        if self.revives:
            self._forget_stale(session, scores, reading.n_past)
        session.eval(reading.new, prompt.query_span, progress.read, scores, protect=prompt.protect)
        steps = [session.stats()]
        extra = self._extra(session, reading, scores)
        if len(extra):
            self._read_more(session, reading, extra, progress)
            steps.append(session.stats())
        stats = stats_of_steps(steps, reading.n_past, time.perf_counter() - begin)
        stats.draft_s, stats.n_draft, stats.second_look = draft_s, found.n_read, len(extra)
        stats.draft_share = self._draft.cost(found.n_read, self._rules.size) / len(reading.new)
        stats.skim_share = 1.0 - len(session.live(0)) / reading.n_tokens
        return stats

    def cache(self) -> DraftCache:
        """What the draft has read."""
        return self._draft.cache()

    def cancel(self) -> None:
        """Stops the draft, from any thread."""
        self._draft.cancel()

    def reset(self) -> None:
        """Forgets every prompt."""
        self._draft.reset()

    def close(self) -> None:
        """Frees the draft's caches."""
        self._draft.close()

    def _why_not(self, reading: Reading) -> Optional[str]:
        n_tokens, least = reading.n_tokens, self._rules.min_prompt
        if n_tokens < least:
            return f"not run: {n_tokens} tokens are below min_prompt {least}"
        if reading.n_past > 0 and len(reading.new) == 1:
            return "not run for one token"
        if self._rules.dense_unasked and reading.prompt.query_span is None:
            return "not run: the prompt asks nothing"
        return None

    def _session_scores(self, found: DraftScores, reading: Reading) -> Scores:
        """Scores for ``Session.eval``: inf for what is read in any case."""
        always = found.text.is_control | np.isnan(found.scores)
        always[[*reading.prompt.protect, *reading.prompt.recent]] = True
        if self._rules.headings is not None:
            always |= found.text.lines_matching(self._rules.headings)
        scores = np.where(always, np.float32(np.inf), found.scores)
        scores = without_fragments(scores, self._rules.entry)
        if not self.revives:
            scores[: reading.n_past] = np.nan
        return scores

    def _forget_stale(self, session: Session, scores: Scores, n_past: int) -> None:
        """Gives up what was read beside gaps that are about to be read.

        What the session will choose is only estimated here: it knows of query rows and sinks too. That is near enough.
        """
        is_read = _mask(n_past, session.cached(0))
        stale = stale_tokens(wanted_tokens(scores, self._rules.entry)[:n_past], is_read)
        session.forget(stale[stale < n_past - 1])

    def _extra(self, session: Session, reading: Reading, scores: Scores) -> Positions:
        """What to read on top."""
        logits = session.logits()
        if logits is None or self._rules.second_look.share == 0:
            return np.empty(0, np.int64)
        is_content = np.isfinite(scores)
        is_content[_asked_from(reading) :] = False
        is_read = _mask(len(scores), session.live(0))
        first = FirstLook(logits, is_read, scores, _first_scores(session), is_content)
        return extra_tokens(first, self._rules.second_look)

    def _read_more(self, session: Session, reading: Reading, extra: Positions, progress: Progress) -> None:
        """Reads more, what depends on it, and the question once more; all else stays as it was."""
        begin, n_tokens, prompt = _asked_from(reading), reading.n_tokens, reading.prompt
        is_read = _mask(n_tokens, session.live(0))
        stale = stale_tokens(is_read | _mask(n_tokens, extra), is_read)
        stale = stale[stale < begin - 1]
        scores = np.full(n_tokens, np.nan, np.float32)
        scores[extra] = scores[stale] = np.inf
        try:
            session.trim(begin)
            session.forget(stale)
            asked = np.asarray(prompt.ids[begin:], np.int32)
            # no progress is shown: the bar has reached its end
            session.eval(asked, prompt.query_span, lambda done, total: progress.check(), scores, protect=prompt.protect)
        except BaseException:
            session.trim(min(session.n_tokens, reading.n_past))
            raise


def _mask(n_tokens: int, positions: npt.NDArray[Any]) -> Mask:
    mask = np.zeros(n_tokens, np.bool_)
    mask[positions] = True
    return mask


def _asked_from(reading: Reading) -> int:
    """Where the newest question begins: what stands from there on is read again after a second look."""
    n_tokens, span = reading.n_tokens, reading.prompt.query_span
    begin = n_tokens - DEFAULT_QUERY if span is None else span[0]
    if n_tokens - begin > _MAX_ASKED_AGAIN:
        begin = n_tokens - DEFAULT_QUERY
    return max(begin, reading.n_past)


def _first_scores(session: Session) -> Optional[Scores]:
    """What the question looked at, at the first pruning point inside the model that scored."""
    found = (session.scores(segment) for segment in range(len(session.stats().n_layers) - 1))
    return next((scores for scores in found if scores is not None), None)
