"""Which tokens must be read again because a gap before them is read now.

A token's K and V hold what stood before it. One that was read beside an unread gap knows nothing of it: the second
digit of a number does not know the first one, and an answer that copies the number breaks off there.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]

_REACH = 32  # tokens after a gap


def stale_tokens(wanted: Mask, is_read: Mask) -> npt.NDArray[np.int64]:
    """Positions that were read without what is read before them now.

    Args:
        wanted: (n_tokens,) what is to be there.
        is_read: (n_tokens,) what is there.

    Returns:
        Wanted positions that are read already and stand in one run of wanted tokens with one that is not, up to 32
        tokens after it; ascending.
    """
    fresh = wanted & ~is_read
    n_fresh = np.cumsum(fresh)
    before_run = np.maximum.accumulate(np.where(wanted, 0, n_fresh))  # fresh ones up to the last token not wanted
    places = np.arange(len(wanted))
    last_fresh = np.maximum.accumulate(np.where(fresh, places, -_REACH - 1))
    near = (n_fresh > before_run) & (places - last_fresh <= _REACH)
    return np.flatnonzero(wanted & is_read & near)
