"""Which tokens a session holds, so that what a new prompt shares with them is not read again.

Owns the list of ids beside a session and the reuse of a common prefix. Where both differ the session is right: an
interrupted step leaves it at its last whole step, and the list is cut to that before the next one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .session import Session


def n_common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids two lists have in common at their begin."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(np.asarray(a[:n], np.int64) != np.asarray(b[:n], np.int64))
    return int(differ[0]) if differ.size else n


class SessionTokens:
    """The ids of the tokens in a session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._ids: list[int] = []
        self._is_known = True

    @property
    def ids(self) -> list[int]:
        """The ids, a copy."""
        self._ask()
        return self._ids[: self._session.n_tokens]

    def ids_from(self, n: int) -> list[int]:
        """The ids after the first ``n``, a copy."""
        self._ask()
        return self._ids[n : self._session.n_tokens]

    def settle(self) -> int:
        """Makes list and session agree after a step that may have been interrupted; how many tokens there are."""
        self._ask()
        n_tokens = self._session.n_tokens
        del self._ids[n_tokens:]
        if len(self._ids) < n_tokens:  # interrupted between trimming both
            self._session.trim(len(self._ids))
        return len(self._ids)

    def extend(self, ids: Sequence[int]) -> list[int]:
        """Notes tokens that are about to be read; all ids then."""
        self._ids.extend(ids)
        return self._ids

    def unknown(self) -> None:
        """The session is about to hold other tokens: it is asked for them when they are needed next."""
        self._is_known = False

    def _ask(self) -> None:
        if not self._is_known:
            self._ids = self._session.tokens().tolist()
            self._is_known = True

    def n_common(self, ids: Sequence[int]) -> int:
        """How many tokens at the begin of a prompt the session holds already."""
        self.settle()
        return n_common(self._ids, ids)

    def trim(self, n_tokens: int) -> None:
        """Keeps the first ``n_tokens`` tokens. A session that holds no more keeps its logits too."""
        if n_tokens < self.settle():
            self._session.trim(n_tokens)
        del self._ids[n_tokens:]
