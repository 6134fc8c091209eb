"""A session, the tokens in it, and the rules for using it.

Owns the native session, the stats of the last read, and the guards: closed, another thread, another process, another
generation. Which tokens are there already is ``tokens.py``'s. It knows nothing of text or sampling.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Callable, Optional

import numpy as np
import numpy.typing as npt

from .._ffi import ProgressCallback
from ..errors import Cancelled, ContextFullError
from .prompt import Prompt, Reading
from .scores import PromptAttention, Scores
from .session import DraftCache, Progress, PromptReader, Session
from .stats import Stats, stats_of_steps
from .tokens import SessionTokens
from .watched_session import WatchedSession


class TokenContext:
    """A session with the ids that are in it.

    Attributes:
        stats: of the last read, and of the generation that goes on from it.
        progress: called while a prompt is read with tokens read and tokens to read; None calls nothing.
        draft_progress: the same while a draft reads it, before that.
        reader: reads prompts in its own way; None leaves that to the session.
        draft_note: why there is no reader though a draft was given.
    """

    def __init__(
        self, session: Session, progress: Optional[ProgressCallback] = None, reader: Optional[PromptReader] = None
    ) -> None:
        self.stats = Stats()
        self.progress = progress
        self.draft_progress: Optional[ProgressCallback] = None
        self.reader = reader
        self.draft_note = ""
        self.n_ctx = session.n_ctx
        self._session: Optional[Session] = session
        self._tokens = SessionTokens(session)
        self._holder: dict[str, object] = {}  # "step": who is inside the session; see _step
        self._pid = os.getpid()
        self._generation = 0
        self._marked: Optional[Prompt] = None  # what the session's mark holds
        self._cancelled = False  # a plain flag: an Event's own lock can be lost to Ctrl-C

    @property
    def n_tokens(self) -> int:
        """Tokens in the context."""
        return self._open().n_tokens

    @property
    def ids(self) -> list[int]:
        """The token ids in the context, a copy."""
        self._open()
        return self._tokens.ids

    def ids_from(self, n: int) -> list[int]:
        """The token ids after the first ``n``, a copy."""
        self._open()
        return self._tokens.ids_from(n)

    @property
    def marked(self) -> Optional[Prompt]:
        """The prompt that comes back as it was, whatever was generated since; None where there is none."""
        return self._marked

    def draft_cache(self) -> Optional[DraftCache]:
        """What the draft has read, where one reads here."""
        return None if self.reader is None else self.reader.cache()

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[Session]:
        """The session, for a use that leaves it as it is."""
        with self._step() as session:
            yield session

    def take(self, fill: Callable[[Session], Any], marked: Callable[[list[int]], Optional[Prompt]]) -> None:
        """Has the session hold other tokens, such as saved ones; generations under way are over then.

        Args:
            fill: changes the session, or leaves it as it was and raises.
            marked: from the new ids, the prompt that the session's mark holds.
        """
        with self._step() as session:
            before, self._marked = self._marked, None
            self._tokens.unknown()
            try:
                fill(session)
            except Exception:
                self._marked = before
                raise
            self._generation += 1
            self._cancelled = False
            self._marked = marked(self._tokens.ids)
            self.stats = _all_reused(session.n_tokens, session)

    def logits(self) -> Optional[npt.NDArray[np.float32]]:
        """Logits after the newest token, (n_vocab,); None where nothing was read since the last reset."""
        with self._step() as session:
            return session.logits()

    def attended(self, prompt: Prompt) -> Optional[PromptAttention]:
        """How much each token of a prompt was attended to since it was read; None where it was not read."""
        with self._step() as session:
            n_prompt = len(prompt.ids)
            if not isinstance(session, WatchedSession) or self._tokens.n_common(prompt.ids) < n_prompt:
                return None
            attended = session.attended()
            return attended if attended is not None and len(attended.scores) == n_prompt else None

    def begin(self) -> int:
        """Begins a generation and ends every other one; gives its number, which ``step`` takes."""
        with self._step():
            self._generation += 1
            self._cancelled = False
            return self._generation

    def check(self, generation: int) -> None:
        """Raises RuntimeError when the context went on without this generation, Cancelled after a cancel."""
        if generation != self._generation:
            raise RuntimeError("this generation is over: the model was used for something else meanwhile")
        if self._cancelled:
            raise Cancelled("cancelled")

    def append(self, new: Prompt, scores: Optional[Scores] = None) -> None:
        """Reads tokens after what is there; generations under way are over.

        Args:
            new: the new tokens.
            scores: for every token in the context, see ``_ffi.NativeSession.eval``; no reader reads then.

        Raises:
            ContextFullError: they do not fit.
        """
        with self._step() as session:
            self._generation += 1
            self._cancelled = False
            self._read(session, new, scores)

    def read_prompt(self, prompt: Prompt) -> None:
        """Makes the context hold exactly this prompt, with logits, reading only what is not there already.

        The prompt that was read last comes back as it was, whatever was generated since.

        Raises:
            ContextFullError: it does not fit.
        """
        n_prompt = len(prompt.ids)
        self.check_room(n_prompt)
        with self._step() as session:
            n_common = self._tokens.n_common(prompt.ids)
            if n_common == n_prompt and (n_prompt == session.n_tokens or prompt == self._marked):
                self._tokens.trim(n_prompt)
                if session.logits() is not None:
                    self._mark(session, prompt)
                    self.stats = _all_reused(n_prompt, session)
                    return
            n_common = min(n_common, n_prompt - 1)  # the last token is read again: it gives the logits
            self._marked = None
            self._tokens.trim(n_common)
            self._read(session, prompt.after(n_common))
            self._mark(session, prompt)

    def step(self, token: int, generation: int) -> None:
        """Reads one sampled token."""
        self.check(generation)
        with self._step() as session:
            self._tokens.extend([token])
            session.eval([token], None, None)
            self.stats.add_step(session.stats())

    def check_room(self, n_prompt: int) -> None:
        """Raises ContextFullError when a prompt of ``n_prompt`` tokens leaves no room for an answer."""
        if n_prompt >= self.n_ctx:
            raise ContextFullError(
                f"Requested tokens ({n_prompt}) exceed context window of {self.n_ctx}; "
                f"raise it with n_ctx={n_prompt + 512} (--ctx-size {n_prompt + 512}) or shorten the prompt"
            )

    def reset(self) -> None:
        """Forgets all tokens."""
        with self._step() as session:
            self._generation += 1
            session.reset()
            self._tokens.trim(0)
            if self.reader is not None:
                self.reader.reset()

    def cancel(self) -> None:
        """Stops the read or generation under way, from any thread; it raises Cancelled."""
        self._cancelled = True
        session = self._session
        if session is not None:
            session.cancel()
        if self.reader is not None:
            self.reader.cancel()

    def close(self) -> None:
        """Frees the session; a second call does nothing. RuntimeError while another thread is inside."""
        if self._session is None:
            return
        with self._step() as session:
            self._session = None
            session.close()
            if self.reader is not None:
                self.reader.close()

    def _read(self, session: Session, new: Prompt, scores: Optional[Scores] = None) -> None:
        n_past = session.n_tokens
        if n_past + len(new.ids) > self.n_ctx:
            self.check_room(n_past + len(new.ids))
        begin = time.perf_counter()
        ids = self._tokens.extend(new.ids)
        if self.reader is not None and scores is None:
            progress = Progress(self._on_progress, self._on_draft_progress, self._check_cancelled)
            self.stats = self.reader.read(session, Reading(replace(new, ids=ids), n_past), progress)
            return
        tokens = np.asarray(new.ids, np.int32)
        session.eval(tokens, new.query_span, self._on_progress, scores, protect=new.protect)
        self.stats = stats_of_steps([session.stats()], n_past, time.perf_counter() - begin)
        self.stats.draft_note = self.draft_note

    def _mark(self, session: Session, prompt: Prompt) -> None:
        """Makes the prompt that has been read the one to come back to."""
        session.mark()
        self._marked = replace(prompt, ids=list(prompt.ids))

    def _on_progress(self, n_done: int, n_total: int) -> None:
        self._check_cancelled()
        if self.progress is not None:
            self.progress(n_done, n_total)

    def _on_draft_progress(self, n_done: int, n_total: int) -> None:
        self._check_cancelled()
        if self.draft_progress is not None:
            self.draft_progress(n_done, n_total)

    def _check_cancelled(self) -> None:
        if self._cancelled:  # also a cancel() that came just before the native read began
            raise Cancelled("cancelled")

    @contextlib.contextmanager
    def _step(self) -> Iterator[Session]:
        """Holds the session for one step, with the id list cut to what the session holds."""
        if self._session is not None and os.getpid() != self._pid:
            raise RuntimeError("the model was opened in another process; open it again after a fork")
        me = object()
        try:  # a lock's acquire() and the try after it can be torn apart by Ctrl-C; this cannot
            if self._holder.setdefault("step", me) is not me:
                raise RuntimeError("the model is in use: by another thread, or by the call that runs this callback")
            session = self._open()
            self._tokens.settle()
            yield session
        finally:
            try:
                if self._holder.get("step") is me:
                    del self._holder["step"]
            finally:  # once more, where Ctrl-C came before the deletion
                if self._holder.get("step") is me:
                    del self._holder["step"]

    def _open(self) -> Session:
        if self._session is None:
            raise RuntimeError("the model is closed")
        return self._session


def _all_reused(n_prompt: int, session: Session) -> Stats:
    step = session.stats()
    return Stats(
        n_prompt=n_prompt,
        n_reused=n_prompt,
        token_share=0.0,
        kept=list(step.n_live),
        kv_bytes=step.kv_bytes,
        aux_bytes=step.aux_bytes,
    )
