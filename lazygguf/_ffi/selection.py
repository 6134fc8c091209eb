"""How many tokens a pruning point lets go on, as the native core counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .library import check, ffi, lib


def keep_count(keep: float, n_tokens: int) -> int:
    """How many of ``n_tokens`` a share is: rounded down, safe against 0.29 * 100 = 28.999...

    Raises:
        ValueError: the share is outside [0, 1].
    """
    out = ffi.new("int32_t *")
    check(lib.lazy_keep_count(out, keep, n_tokens))
    return int(out[0])


def count_kept(scores: npt.NDArray[Any], keep: float, keep_min: float, mass: float) -> int:
    """How many tokens go on at a point, by scores from outside.

    Args:
        scores: (n_tokens,); inf for what is read in any case, NaN for what is no candidate.
        keep, keep_min, mass: see ``PruningPoint``.

    Raises:
        ValueError: a share is out of range.
    """
    given, out = np.ascontiguousarray(scores, np.float32), ffi.new("int32_t *")
    pointer = ffi.cast("const float *", ffi.from_buffer(given))
    check(lib.lazy_count_kept(out, pointer, given.size, keep, keep_min, mass))
    return int(out[0])
