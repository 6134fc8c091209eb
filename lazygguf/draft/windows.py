"""Reading a prompt that is longer than the draft's context in pieces, each with the question at its end.

Owns which tokens are in each piece. Positions in, positions out; it knows nothing of models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]

N_SINK = 4  # the prompt's first tokens before each piece, the attention sinks that models rely on
MAX_TAIL = 256  # tokens from the question's begin to the end; where more follow, the question is asked again
_OVERLAP = 8  # neighbouring pieces share an eighth of their length


@dataclass(frozen=True)
class Window:
    """One reading.

    Attributes:
        positions: (n,) the prompt's positions in the order in which they are read; the question may come twice.
        query: indices [begin, end) into them of the tokens that ask.
    """

    positions: Positions
    query: tuple[int, int]


def plan_windows(n_tokens: int, query: tuple[int, int], n_ctx: int) -> list[Window]:
    """The readings that show every token to the question.

    Args:
        n_tokens: of the prompt.
        query: positions [begin, end) of the question.
        n_ctx: most tokens of a reading.

    Returns:
        One where the prompt fits, else several that overlap.

    Raises:
        ValueError: the context is too short for the question.
    """
    begin, end = query
    repeats = n_tokens - begin > MAX_TAIL
    tail = np.arange(begin, end if repeats else n_tokens)
    n_body = n_tokens if repeats else begin
    size = n_ctx - len(tail)
    if size >= n_body:
        return [_window([np.arange(n_body), tail], end - begin)]
    head = np.arange(N_SINK)
    size -= N_SINK
    if size < 2:
        raise ValueError(f"a context of {n_ctx} tokens cannot hold a question of {len(tail)} and text beside it")
    n_pieces = 1 + -(-(n_body - N_SINK - size) // _step(size))
    size = _even_size(n_body - N_SINK, n_pieces)
    begins = np.linspace(N_SINK, n_body - size, n_pieces).astype(int) if n_pieces > 1 else [N_SINK]
    return [_window([head, np.arange(at, at + size), tail], end - begin) for at in begins]


def _step(size: int) -> int:
    """From one piece's begin to the next one's, at most."""
    return size - size // _OVERLAP


def _even_size(n_body: int, n_pieces: int) -> int:
    """The least size with which so many pieces show all of the body. Reading costs more than twice as much for twice
    the size, so two pieces of half the text are read sooner than two that nearly fill the context."""
    size = -(-n_body * _OVERLAP // (n_pieces * (_OVERLAP - 1) + 1))
    while (n_pieces - 1) * _step(size) + size < n_body:
        size += 1
    return size


def _window(parts: list[Positions], n_query: int) -> Window:
    n_before = sum(len(part) for part in parts[:-1])
    return Window(np.concatenate(parts), (n_before, n_before + n_query))
