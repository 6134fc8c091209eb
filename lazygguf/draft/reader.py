"""Reading with a draft: it skims the prompt, the large model reads what the question wants, and looks again if need be.

Owns the order of the two, when the draft is not worth its time, and how its scores become what a session wants. Later
turns are the same: the draft, which still holds the document, reads the new question, and what it wants now is read at
its place.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from ..files.size import ModelSize
from ..read.reading import ProgressCallback, Reading, Session, Told
from ..read.stats import Stats, stats_of_steps
from ..schedule.keep_schedule import DEFAULT_QUERY, PruningPoint
from .draft import Draft, Skim
from .second_look import Floats, LookAgain, View, extra_tokens
from .stale import stale_tokens
from .wanted import n_wanted, without_fragments

_MAX_ASKED_AGAIN = 256  # newest tokens that are read again with what a second look found


@dataclass(frozen=True)
class DraftRules:
    """When and how a draft is used for one large model.

    Attributes:
        size: of the large model.
        entry: the pruning point before layer 0; None: all tokens go on.
        min_prompt: contexts below it are read whole, without the draft.
        look_again: the second look.
        headings: lines whose begin matches are always read.
        dense_unasked: what asks nothing (plain text to go on with, a question before a long text) is read whole.
    """

    size: ModelSize
    entry: Optional[PruningPoint] = None
    min_prompt: int = 0
    look_again: LookAgain = field(default_factory=LookAgain)
    headings: Optional[re.Pattern[bytes]] = None
    dense_unasked: bool = False


class DraftReader:
    """Reads a session's prompts with a draft (``reading.PromptReader``).

    Attributes:
        revives: later questions may bring in what earlier ones left unread. False is for measuring what that is worth.
    """

    def __init__(self, draft: Draft, rules: DraftRules) -> None:
        self.revives = True
        self._draft = draft
        self._rules = rules

    def read(self, session: Session, reading: Reading, told: Told) -> Stats:
        """Reads; on any failure the session is as it was before."""
        begin = time.perf_counter()
        note = self._why_not(reading)
        if note is not None:
            session.eval(reading.new, reading.query_span, told.read, protect=reading.protect)
            stats = self._stats([session.stats()], reading, begin)
            stats.draft_note = note
            return stats
        skim = self._draft.skim(reading.ids, reading.query_span, told.skim)
        draft_s = time.perf_counter() - begin
        scores = self._scores(skim, reading)
        if self.revives:
            self._forget_stale(session, scores, reading.n_past)
        session.eval(reading.new, reading.query_span, told.read, scores, protect=reading.protect)
        steps = [session.stats()]
        extra = self._extra(session, reading, scores)
        if len(extra):
            steps.append(self._look_again(session, reading, extra, told))
        stats = self._stats(steps, reading, begin)
        stats.draft_s, stats.n_draft, stats.second_look = draft_s, skim.n_read, len(extra)
        stats.draft_share = self._draft.cost(skim.n_read, self._rules.size) / len(reading.new)
        stats.skim_share = 1.0 - len(session.live(0)) / len(reading.ids)
        return stats

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
        n_tokens, least = len(reading.ids), self._rules.min_prompt
        if n_tokens < least:
            return f"not run: {n_tokens} tokens are below min_prompt {least}"
        if reading.n_past > 0 and len(reading.new) == 1:
            return "not run for one token"
        if self._rules.dense_unasked and reading.query_span is None:
            return "not run: the prompt asks nothing"
        return None

    def _scores(self, skim: Skim, reading: Reading) -> Floats:
        """What the session wants: inf for what is read in any case."""
        always = skim.text.is_control | np.isnan(skim.scores)
        always[[*reading.protect, *reading.recent]] = True
        if self._rules.headings is not None:
            always |= skim.text.lines_that(self._rules.headings)
        scores = np.where(always, np.float32(np.inf), skim.scores)
        scores = without_fragments(scores, self._rules.entry)
        if not self.revives:
            scores[: reading.n_past] = np.nan
        return scores

    def _forget_stale(self, session: Session, scores: Floats, n_past: int) -> None:
        """Gives up what was read beside gaps that are about to be read. What is selected is near enough to be known."""
        is_read = np.zeros(n_past, np.bool_)
        is_read[session.cached(0)] = True
        wanted = np.isposinf(scores)
        wanted[np.argsort(-scores, kind="stable")[: n_wanted(scores, self._rules.entry)]] = True
        stale = stale_tokens(wanted[:n_past], is_read)
        session.forget(stale[stale < n_past - 1])

    def _extra(self, session: Session, reading: Reading, scores: Floats) -> npt.NDArray[np.int64]:
        logits = session.logits()
        if logits is None or self._rules.look_again.share == 0:
            return np.empty(0, np.int64)
        is_read = np.zeros(len(scores), np.bool_)
        is_read[session.live(0)] = True
        content = np.isfinite(scores)
        content[_asked_from(reading) :] = False
        view = View(logits, is_read, scores, _looked_at(session), content)
        return extra_tokens(view, self._rules.look_again)

    def _look_again(self, session: Session, reading: Reading, extra: npt.NDArray[np.int64], told: Told) -> Any:
        """Reads more, what follows it and the question once more; all else stays as it was."""
        begin = _asked_from(reading)
        is_read = np.zeros(len(reading.ids), np.bool_)
        is_read[session.live(0)] = True
        wanted = is_read.copy()
        wanted[extra] = True
        stale = stale_tokens(wanted, is_read)
        stale = stale[stale < begin - 1]
        scores = np.full(len(reading.ids), np.nan, np.float32)
        scores[extra] = scores[stale] = np.inf
        try:
            session.trim(begin)
            session.forget(stale)
            asked = np.asarray(reading.ids[begin:], np.int32)
            session.eval(asked, reading.query_span, _silent(told), scores, protect=reading.protect)
        except BaseException:
            session.trim(min(session.n_tokens, reading.n_past))
            raise
        return session.stats()

    def _stats(self, steps: list[Any], reading: Reading, begin: float) -> Stats:
        return stats_of_steps(steps, reading.n_past, time.perf_counter() - begin)


def _silent(told: Told) -> ProgressCallback:
    """Tells nobody, and stops where somebody cancelled."""
    return lambda n_done, n_total: told.check()


def _asked_from(reading: Reading) -> int:
    """Where the newest question begins: what stands from there on is read again after a second look."""
    n_tokens = len(reading.ids)
    begin = n_tokens - DEFAULT_QUERY if reading.query_span is None else reading.query_span[0]
    if n_tokens - begin > _MAX_ASKED_AGAIN:
        begin = n_tokens - DEFAULT_QUERY
    return max(begin, reading.n_past)


def _looked_at(session: Session) -> Optional[npt.NDArray[np.float32]]:
    """What the question looked at, at the first pruning point inside the model that scored."""
    for segment in range(len(session.stats().n_layers) - 1):
        found = session.scores(segment)
        if found is not None:
            return found
    return None
